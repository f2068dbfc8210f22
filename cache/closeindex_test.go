package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClosingOnAFullDisk promises that the owner of a store on a full disk ends without harm, and that the next one has all that was
// there: with the ballast at once, without it when there is room.
func TestClosingOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, ballast := range []int64{48 << 20, -1} {
		t.Run(fmt.Sprint(ballast), func(t *testing.T) {
			t.Parallel()
			s := createOnSmallDisk(t, "150m", -1, ballast)
			e := put(t, s, KindItem, "a", "content")
			id := publish(t, s, "stable", e)
			others := fillDisk(t, s, 0)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(filepath.Join(s.dir, lockFile)); (len(text) > 0) != (ballast < 0) {
				t.Errorf("LOCK says %q (%v)", text, err)
			}
			if ballast < 0 {
				if err := s.reopen(t); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "oxbow store sweep") {
					t.Errorf("opened without any room: %v", err)
				}
				if text, err := os.ReadFile(filepath.Join(s.dir, lockFile)); len(text) == 0 {
					t.Errorf("LOCK says %q (%v) after an attempt to open the store", text, err)
				}
				makeRoom(t, others)
			}
			next := reopenStore(t, s.dir)
			wantFound(t, next, "stable", Published, "a", e, id)
			wantBlob(t, next, []byte("content"))
		})
	}
}

// TestClosingEnds promises that an owner ends although the disk takes nothing any more: Badger would try for ever.
func TestClosingEnds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		summary string
		harm    func(dir string) error
		heal    func(dir string) error
	}{
		{
			"no file can be made",
			func(dir string) error { return os.Rename(dir, dir+"-away") },
			func(dir string) error { return os.Rename(dir+"-away", dir) },
		},
		{
			"no table can be made",
			func(dir string) (err error) {
				for i := range 100 {
					err = errors.Join(err, os.Mkdir(filepath.Join(dir, fmt.Sprintf("%06d.sst", i)), 0o755))
				}
				return err
			},
			func(dir string) (err error) {
				for i := range 100 {
					err = errors.Join(err, os.Remove(filepath.Join(dir, fmt.Sprintf("%06d.sst", i))))
				}
				return err
			},
		},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			s := createStore(t)
			e := put(t, s, KindItem, "a", "content")
			id := publish(t, s, "stable", e)
			s.index.closeTime = 100 * time.Millisecond
			dir := filepath.Join(s.dir, indexDir)
			if err := test.harm(dir); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			copied := copyStore(t, s.dir)
			for _, dir := range []string{dir, filepath.Join(copied, indexDir)} {
				if err := test.heal(dir); err != nil {
					t.Fatal(err)
				}
			}
			if s.index.closed != nil {
				if err := <-s.index.closed; err != nil { // it has been tried all the while
					t.Error(err)
				}
			}
			next, log := reopenLogged(t, copied)
			wantFound(t, next, "stable", Published, "a", e, id)
			if log != "" {
				t.Errorf("the log says\n%s", log)
			}
		})
	}
}
