package main

import (
	"errors"
	"log/slog"

	"oxbow/cmd/oxbow/internal/site"
	"oxbow/proxy"
)

// A front is what the front end has beside the store. Its zero value is that of
// plain HTTP to everyone.
type front struct {
	certificate *proxy.Certificate
	tokens      *proxy.Tokens
	metrics     *proxy.Metrics
}

// load reads the files that the configuration names for the front end.
func (f *front) load(s *site.Site, log *slog.Logger) (err error) {
	if s.Serve.TLS != (site.TLS{}) {
		if f.certificate, err = proxy.LoadCertificate(s.Serve.TLS.Cert, s.Serve.TLS.Key, log); err != nil {
			return err
		}
	}
	if s.Serve.TokenFile != "" {
		f.tokens, err = proxy.LoadTokens(s.Serve.TokenFile, log)
	}
	return err
}

// reload reads the certificate and the tokens again. After an error those that were
// there before stay in effect.
func (f *front) reload() error {
	var errs []error
	if f.certificate != nil {
		errs = append(errs, f.certificate.Reload())
	}
	if f.tokens != nil {
		errs = append(errs, f.tokens.Reload())
	}
	return errors.Join(errs...)
}

// scheme is that of the front end's URLs.
func (f *front) scheme() string {
	if f.certificate != nil {
		return "https"
	}
	return "http"
}
