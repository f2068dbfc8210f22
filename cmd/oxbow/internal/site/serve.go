package site

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
)

const (
	maxPEM   = 1 << 20 // bytes of a certificate's or key's file
	maxToken = 4 << 10 // bytes of the token's file
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
	cert, certThere := r.content(m["cert"], t.Cert, maxPEM)
	key, keyThere := r.content(m["key"], t.Key, maxPEM)
	if !certThere || !keyThere {
		return TLS{}
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		r.problem(v.at, v.path, fmt.Sprintf("cannot use %s with %s: %v", t.Cert, t.Key, err), "`cert` is a PEM file of the certificate and those above it, `key` one of its private key")
	}
	return t
}

func (r *reader) tokenFile(v value) string {
	name := r.optionalFile(v, "/etc/oxbow/token")
	if name == "" {
		return ""
	}
	if data, ok := r.content(v, name, maxToken); ok && len(bytes.TrimSpace(data)) == 0 {
		r.refuse(v, fmt.Sprintf("`token_file`: %s is empty", name), "write the token that clients send into it, or remove the key")
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

// content returns what is in a file that a value names: a regular one of at most
// limit bytes.
func (r *reader) content(v value, name string, limit int64) ([]byte, bool) {
	data, err := readRegular(name, limit)
	if err != nil {
		r.refuse(v, fmt.Sprintf("`%s`: cannot read %s: %s", v.key, name, reason(err)), "")
		return nil, false
	}
	return data, true
}

func readRegular(name string, limit int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // opening a FIFO would wait for its writer
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it is longer than %s", sizeText(limit))
	}
	return data, err
}
