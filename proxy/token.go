package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
)

const (
	minToken  = 16  // characters: what a password generator makes, no word
	maxTokens = 100 // in a file; each request is held against all of them
)

// Tokens are the secrets of which a client has to show one, where the server asks for any.
// They are those of a file, one a line, so that a new one can be handed out before the
// old one goes; lines that begin with # and empty ones do not count. A changed file takes
// effect by itself within a minute or so, and at [Tokens.Reload] at once.
type Tokens struct {
	file    watched
	digests atomic.Pointer[[][sha256.Size]byte]
}

// LoadTokens reads a file of tokens. The log is told of changes; if nil, nobody is.
func LoadTokens(file string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{file: watched{
		what:   "token file",
		names:  []string{file},
		secret: file,
		log:    orDiscard(log),
	}}
	t.file.use = func(contents [][]byte) error {
		digests, err := parseTokens(contents[0])
		if err != nil {
			return fmt.Errorf("cannot use the token file %s: %w", file, err)
		}
		t.digests.Store(&digests)
		return nil
	}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads the file again. After an error the tokens that were loaded before stay in
// effect. It may be called at any time from any goroutine.
func (t *Tokens) Reload() error { return t.file.load() }

// parseTokens returns the digests of a file's tokens. Its errors name lines and do not
// show what they say.
func parseTokens(data []byte) (digests [][sha256.Size]byte, err error) {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		token := bytes.TrimSpace(line)
		switch {
		case len(token) == 0 || token[0] == '#':
			continue
		case bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
			return nil, fmt.Errorf("line %d: a token is made of visible ASCII characters, without white space", n)
		case len(token) < minToken:
			return nil, fmt.Errorf("line %d: a token has %d characters or more; `openssl rand -hex 32` makes one", n, minToken)
		case len(digests) == maxTokens:
			return nil, fmt.Errorf("line %d: there are more than %d tokens", n, maxTokens)
		}
		digests = append(digests, sha256.Sum256(token))
	}
	if len(digests) == 0 {
		return nil, errors.New("it has no token; `openssl rand -hex 32` makes one")
	}
	return digests, nil
}

// allow reports whether the value of an Authorization or Proxy-Authorization header shows
// one of the tokens: as Bearer, or as the password of any user, which is what curl and
// python-simplestreams make of http://any:TOKEN@HOST/ and the only way in which a MAAS boot
// source, or its http_proxy, can carry one.
func (t *Tokens) allow(authorization string) bool {
	scheme, shown, _ := strings.Cut(authorization, " ")
	shown = strings.TrimLeft(shown, " ") // RFC 9110, 11.4: one or more
	if !strings.EqualFold(scheme, "Bearer") {
		r := http.Request{Header: http.Header{"Authorization": {authorization}}}
		_, shown, _ = r.BasicAuth()
	}
	t.file.look()
	// Digests are of one length, and all are compared: the time that it takes tells nothing.
	digest, same := sha256.Sum256([]byte(shown)), 0
	for _, d := range *t.digests.Load() {
		same |= subtle.ConstantTimeCompare(d[:], digest[:])
	}
	return same == 1
}

// unauthorized answers a request that shows no token or a wrong one.
func (s *Server) unauthorized(w *reply, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="oxbow", Basic realm="oxbow"`)
	if endsConnection(r, documentType(r.URL.Path) != "") {
		w.Header().Set("Connection", "close")
	}
	say(w, http.StatusUnauthorized, "", "a token is needed here: `Authorization: Bearer TOKEN`, or the TOKEN as password in the URL")
}
