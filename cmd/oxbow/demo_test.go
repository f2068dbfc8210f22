package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// What the demo prints works as printed, until SIGTERM ends it with status 0.
func TestDemo(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() { status <- run(ctx, []string{"oxbow", "demo", "--json", "--log-level=error"}, w, &stderr) }()
	var v demoView
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		t.Fatalf("%v; standard error: %s", err, &stderr)
	}
	keyring, err := os.ReadFile(v.KeyringFile)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	served, err := (&audit{client: client}).get(ctx, v.KeyringURL)
	if err != nil || !bytes.Equal(served, keyring) {
		t.Errorf("the keyring over HTTP is not the one in the file: %v", err)
	}
	if len(v.Curl) != 3 {
		t.Errorf("%d curl lines, want 3", len(v.Curl))
	}
	for _, line := range v.Curl {
		tryLine(t, line)
	}
	for _, line := range []string{v.MAAS, v.MAASRemote} {
		if !strings.Contains(line, "maas $PROFILE boot-sources create url="+v.BootSource+" keyring_") {
			t.Errorf("%q creates no boot source", line)
		}
	}
	stop(stoppedBy(syscall.SIGTERM))
	if got := <-status; got != exitDone {
		t.Errorf("status %d, want %d; standard error: %s", got, exitDone, &stderr)
	}
	if _, err := os.Stat(v.KeyringFile); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", v.KeyringFile, err)
	}
}

// tryLine runs a line in a shell. Where it prints a sum, that has to be the one
// in the line's comment.
func tryLine(t *testing.T, line string) {
	t.Helper()
	for _, tool := range []string{"curl", "gpgv", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil && strings.Contains(line, tool) {
			t.Logf("not tried, since there is no %s: %s", tool, line)
			return
		}
	}
	out, err := exec.Command("sh", "-ec", line).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	if _, sum, ok := strings.Cut(line, " # "); ok && !strings.HasPrefix(string(out), sum) {
		t.Errorf("%s: got %s", line, out)
	}
}
