package proxy

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how often files that may be replaced at any time are looked at.
	lookEvery = time.Minute

	// maxWatched bounds such a file, in bytes.
	maxWatched = 256 << 10
)

// watched is a few small files that take effect together, and again when they change.
// When they cannot be used, as while they are being replaced, what was loaded before
// stays in effect.
type watched struct {
	what   string   // they are, for the log
	names  []string // of the files
	secret string   // the one of them that is nobody else's to read
	use    func(contents [][]byte) error
	log    *slog.Logger

	looked atomic.Pointer[time.Time] // when they were read last
	mu     sync.Mutex                // held by the one who reads them; guards seen
	seen   [sha256.Size]byte         // tells what was read then, used or not
}

// load reads the files and makes them take effect.
func (w *watched) load() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	contents, err := w.read()
	return w.take(contents, err)
}

// look does what load does for files that have changed, and logs what came of it: once
// for each content, so that nothing is said twice. It reads them once in lookEvery at
// most, and only one of its callers does; the others go on with what is in effect.
func (w *watched) look() {
	if time.Since(*w.looked.Load()) < lookEvery || !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	contents, err := w.read()
	if fingerprint(contents, err) == w.seen {
		return
	}
	if err := w.take(contents, err); err != nil {
		w.log.Error("the "+w.what+" changed and cannot be used; the one loaded before stays in effect", "reason", err)
		return
	}
	w.log.Info("the " + w.what + " changed and is in effect")
}

func (w *watched) read() (contents [][]byte, err error) {
	now := time.Now()
	w.looked.Store(&now)
	for _, name := range w.names {
		data, err := readSmall(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the %s: %w", w.what, err)
		}
		contents = append(contents, data)
	}
	return contents, nil
}

// take makes what was read take effect. w.mu is held.
func (w *watched) take(contents [][]byte, err error) error {
	w.seen = fingerprint(contents, err)
	if err == nil {
		err = w.use(contents)
	}
	if err != nil {
		return err
	}
	if info, err := os.Stat(w.secret); err == nil && info.Mode()&0o004 != 0 {
		w.log.Warn("everyone on this machine can read a secret: `chmod o= FILE` mends that", "file", w.secret)
	}
	return nil
}

// readSmall reads a regular file of up to maxWatched bytes. A pipe would keep its reader
// waiting.
func readSmall(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxWatched+1))
	if err == nil && len(data) > maxWatched {
		err = fmt.Errorf("%s is larger than %d KiB", name, maxWatched>>10)
	}
	return data, err
}

// fingerprint tells one outcome of reading from another.
func fingerprint(contents [][]byte, err error) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %v", contents, err))
}
