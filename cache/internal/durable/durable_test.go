package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newDisk returns a disk, and the operations on it as they come.
func newDisk(t *testing.T) (*Disk, *[]Op) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Mkdir("temp", 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := New(root, "temp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { errors.Join(d.Close(), root.Close()) })
	var ops []Op
	d.Trace = func(op Op) error { ops = append(ops, op); return nil }
	return d, &ops
}

func TestWriteFileSyncsThenRenamesThenSyncs(t *testing.T) {
	d, ops := newDisk(t)
	if err := d.Root.Mkdir("a", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"old", "new"} {
		*ops = nil
		if err := d.WriteFile("a/file", []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if len(*ops) != 3 || (*ops)[0].Kind != "fsync" || !strings.HasPrefix((*ops)[0].Name, "write-") ||
			!slices.Equal((*ops)[1:], []Op{{"rename", "a/file"}, {"fsync", "a"}}) {
			t.Errorf("operations: %v", *ops)
		}
		if data, err := d.Root.ReadFile("a/file"); string(data) != text || err != nil {
			t.Errorf("got %q, %v", data, err)
		}
	}
	if st, err := d.Root.Stat("a/file"); err != nil || st.Mode() != 0o640 {
		t.Errorf("mode %v (%v)", st.Mode(), err)
	}
}

func TestWriteFileLeavesTheOldFileWhenAStepFails(t *testing.T) {
	d, _ := newDisk(t)
	if err := d.WriteFile("file", []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	for step, want := range []string{"old", "old", "new"} {
		n := 0
		d.Trace = func(Op) error {
			if n++; n == step+1 {
				return broken
			}
			return nil
		}
		if err := d.WriteFile("file", []byte("new"), 0o644); !errors.Is(err, broken) {
			t.Errorf("step %d: got %v", step, err)
		}
		if data, err := d.Root.ReadFile("file"); string(data) != want || err != nil {
			t.Errorf("step %d: got %q, %v", step, data, err)
		}
		if left, _ := fs.ReadDir(d.Root.FS(), "temp"); len(left) != 0 {
			t.Errorf("step %d: left %v", step, left)
		}
	}
}

func TestMkdirAllSyncsTheParentOfEachThatItMakes(t *testing.T) {
	d, ops := newDisk(t)
	if err := d.MkdirAll("a/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	if want := []Op{{"mkdir", "a"}, {"fsync", "."}, {"mkdir", "a/b"}, {"fsync", "a"}, {"mkdir", "a/b/c"}, {"fsync", "a/b"}}; !slices.Equal(*ops, want) {
		t.Errorf("operations: %v, want %v", *ops, want)
	}
	*ops = nil
	if err := d.MkdirAll("a/b/c", 0o755); err != nil || len(*ops) != 0 {
		t.Errorf("made again: %v, %v", *ops, err)
	}
	if err := d.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.MkdirAll("file/b", 0o755); err == nil {
		t.Error("a file is taken for a directory")
	}
}

func TestRemoveIsForGood(t *testing.T) {
	d, ops := newDisk(t)
	if err := d.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	*ops = nil
	if err := d.Remove("file"); err != nil {
		t.Fatal(err)
	}
	if want := []Op{{"remove", "file"}, {"fsync", "."}}; !slices.Equal(*ops, want) {
		t.Errorf("operations: %v, want %v", *ops, want)
	}
	if err := d.Remove("file"); err != nil {
		t.Errorf("removed again: %v", err)
	}
	if err := d.Remove("nowhere/file"); err != nil {
		t.Errorf("removed from where there is nothing: %v", err)
	}
}

// A removal that was not synced at the first attempt is at the second.
func TestRemovedAgainIsForGood(t *testing.T) {
	d, ops := newDisk(t)
	if err := d.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	record := d.Trace
	d.Trace = func(op Op) error {
		if op.Kind == "fsync" {
			return broken
		}
		return nil
	}
	if err := d.Remove("file"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	d.Trace, *ops = record, nil
	if err := d.Remove("file"); err != nil {
		t.Fatal(err)
	}
	if want := []Op{{"remove", "file"}, {"fsync", "."}}; !slices.Equal(*ops, want) {
		t.Errorf("operations: %v, want %v", *ops, want)
	}
}

func TestNamesCannotLeaveTheTree(t *testing.T) {
	d, _ := newDisk(t)
	outside := filepath.Join(d.Root.Name(), "..", "outside")
	for _, err := range []error{
		d.WriteFile("../outside", nil, 0o644),
		d.MkdirAll("../outside", 0o755),
		d.Rename("temp", "../outside"),
	} {
		if err == nil {
			t.Error("no error")
		}
	}
	if _, err := os.Lstat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", outside, err)
	}
}

func TestSyncFS(t *testing.T) {
	d, ops := newDisk(t)
	if err := d.SyncFS(); err != nil {
		t.Fatal(err)
	}
	if want := []Op{{"syncfs", "."}}; !slices.Equal(*ops, want) {
		t.Errorf("operations: %v, want %v", *ops, want)
	}
}
