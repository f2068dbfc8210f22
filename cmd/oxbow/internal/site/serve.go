package site

import (
	"errors"
	"net"
	"strconv"

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
	r.forwardProxy(m["forward_proxy"])
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

func (r *reader) forwardProxy(v value) {
	m := r.mapping(v, "listen", "allow")
	const remedy = "this version has no forward proxy; remove the key"
	if s, _ := r.text(m["listen"], "an address", `""`); s != "" {
		r.refuse(m["listen"], "`forward_proxy` cannot listen", remedy)
	}
	if all, _ := r.texts(m["allow"], "a list of hosts", "[]"); len(all) > 0 {
		r.refuse(m["allow"], "`forward_proxy` cannot allow anything", remedy)
	}
}
