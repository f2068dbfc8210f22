package site

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"oxbow/proxy"
)

// CheckListen says what is wrong with an address to accept connections at, if
// anything.
func CheckListen(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("it is HOST:PORT, or :PORT for all addresses of this machine")
	}
	return nil
}

func (r *reader) serve(v value) Serve {
	m := r.mapping(v, "listen", "tls", "token_file", "on_failure", "forward_proxy")
	s := Serve{TLS: r.tls(m["tls"]), TokenFile: r.tokenFile(m["token_file"])}
	if addr, ok := r.text(m["listen"], "an address", `":8080"`); ok {
		if CheckListen(addr) != nil {
			r.wrong(m["listen"], "HOST:PORT, or :PORT for all addresses of this machine", `":8080"`)
		}
		s.Listen = addr
	}
	s.OnFailure, _ = r.text(m["on_failure"], "a command line", `"logger -p user.err 'oxbow: a sync failed'"`)
	s.Forward = r.forwardProxy(m["forward_proxy"], s.Listen)
	return s
}

// optionalFile returns the name of a file, absolute, or "" where that is said.
func (r *reader) optionalFile(v value, example string) string {
	if s, ok := r.text(v, "the name of a file", example); !ok || s == "" {
		return ""
	}
	return r.fileName(v, example)
}

func (r *reader) tls(v value) TLS {
	m := r.mapping(v, "cert", "key")
	t := TLS{r.optionalFile(m["cert"], "/etc/oxbow/tls.crt"), r.optionalFile(m["key"], "/etc/oxbow/tls.key")}
	switch {
	case t == TLS{}:
		return TLS{}
	case t.Cert == "":
		r.problem(v.at, v.path, "`tls` has a `key` and no `cert`", "name both, or none for plain HTTP")
		return TLS{}
	case t.Key == "":
		r.problem(v.at, v.path, "`tls` has a `cert` and no `key`", "name both, or none for plain HTTP")
		return TLS{}
	}
	if _, err := proxy.LoadCertificate(t.Cert, t.Key, nil); err != nil { // as `oxbow serve` does
		r.problem(v.at, v.path, err.Error(), "`cert` is a PEM file of the certificate and those above it, `key` one of its private key")
	}
	return t
}

func (r *reader) tokenFile(v value) string {
	name := r.optionalFile(v, "/etc/oxbow/token")
	if name == "" {
		return ""
	}
	if _, err := proxy.LoadTokens(name, nil); err != nil { // as `oxbow serve` does
		r.refuse(v, err.Error(), "")
	}
	return name
}

// forwardProxy reads where clients that have an http_proxy are served, and what they may
// reach beside the streams. The front end listens at front.
func (r *reader) forwardProxy(v value, front string) Forward {
	m := r.mapping(v, "listen", "allow")
	var f Forward
	f.Listen, _ = r.text(m["listen"], "an address", `":3128"`)
	switch {
	case f.Listen == "":
	case CheckListen(f.Listen) != nil:
		r.wrong(m["listen"], "HOST:PORT, or :PORT for all addresses of this machine", `":3128"`)
	case f.Listen == cmp.Or(front, DefaultListen) && !strings.HasSuffix(f.Listen, ":0"):
		r.refuse(m["listen"], fmt.Sprintf("`forward_proxy` is to listen at `%s`, as the front end does", f.Listen), "give it a port of its own, as in `listen: \":3128\"`")
	}
	const example = `"archive.ubuntu.com:80"`
	texts, at := r.texts(m["allow"], "a host with its port or a list of them", example)
	for i, text := range texts {
		a, err := proxy.ParseAllowed(text)
		if err != nil {
			r.refuse(at[i], fmt.Sprintf("`allow` has %q, which is %v", shortened(withoutSecrets(text)), err), proxy.AllowRule+", as in `allow: ["+example+"]`")
			continue
		}
		f.Allow = append(f.Allow, a)
	}
	if len(texts) > 0 && f.Listen == "" {
		r.refuse(m["allow"], "`forward_proxy` allows something and does not listen", "say where it is to, as in `listen: \":3128\"`, or remove the key")
	}
	return f
}
