package main

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What README tells an operator to do works as written, on a machine on which there
// is nothing of oxbow yet: from the clone to MAAS, then a change of the configuration,
// stop and start, an upgrade, and the way back from one. This binary is the machine: it
// is run once more, in namespaces and with a root of its own.
func TestFirstDay(t *testing.T) {
	if filepath.Base(os.Args[0]) == machineName {
		if err := enterRoot(); err != nil {
			t.Fatal(err)
		}
		newDay(t).run()
		return
	}
	skipWithoutRoots(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{
		Path: program,
		Args: []string{machineName, "-test.run=^TestFirstDay$", "-test.v", "-test.timeout=2m"},
		Dir:  newRoot(t),
		// A program under the race detector rests for a second before it ends, if it may.
		Env: []string{"PATH=" + systemPath, "PROFILE=admin", "GORACE=atexit_sleep_ms=0"},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
			Pdeathsig:  syscall.SIGKILL, // all that runs on the machine ends with it
		},
	}
	runtime.LockOSThread() // the thread whose death is meant
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	t.Logf("the day:\n%s", out)
	if err != nil {
		t.Error(err)
	}
}

const (
	siteConfig = "/etc/oxbow/oxbow.yaml"
	siteStore  = "/var/lib/oxbow"
	mirrorURL  = "http://localhost:8080"
)

func (d *day) run() {
	d.install()
	d.start()
	d.point()
	d.change()
	d.watch()
	d.syncAsRoot()
	d.stopAndStart()
	d.upgrade()
	d.refuseNewerFormat()
	d.running.end()
	d.asking.end()
}

// install installs and configures. Where Ubuntu's keyring is not, as here, its copy
// is named.
func (d *day) install() {
	d.shell(d.running.block("make build\nsudo install bin/oxbow /usr/local/bin/\nsudo useradd"))
	d.write("/etc/oxbow/upstream.gpg", d.tree.Keyring())
	d.edit("#keyring: /usr/share/keyrings/ubuntu-cloudimage-keyring.gpg", "keyring: /etc/oxbow/upstream.gpg")
	d.edit("#reserve: 2GiB", "reserve: 1MiB") // this machine's disk may be small
}

// start starts, and waits for what the schedule does. The status is as README shows it,
// to those who may read the store.
func (d *day) start() {
	out := d.shell(d.running.block("sudo -u oxbow oxbow config check"))
	if !strings.HasPrefix(out, siteConfig+": ok, 1 stream\n") {
		d.t.Errorf("the configuration is not proven: %s", out)
	}
	d.await("something is published", func() bool { status, _ := d.get("/-/readyz"); return status == http.StatusOK })
	d.await("the sync is noted", func() bool { return d.status().LastSync != nil })
	if out, status := d.as("operator", "oxbow", "mirror", "status"); status != exitFailed || !strings.Contains(out, "hint: run it as the user who owns the store") {
		d.t.Errorf("who may not read the store: status %d: %s", status, out)
	}
	shown := strings.SplitAfter(d.running.block("STREAM"), "\n")
	got := strings.SplitAfter(d.shell("sudo -u oxbow oxbow mirror status"), "\n")
	for i, line := range shown {
		if i >= len(got) || shape(got[i]) != shape(line) {
			d.t.Errorf("README shows the status\n%sand it is\n%s", strings.Join(shown, ""), strings.Join(got, ""))
			break
		}
	}
}

var (
	gaps   = regexp.MustCompile(` {2,}`)
	ages   = regexp.MustCompile(`\b\d+[smhd]\b`)
	counts = regexp.MustCompile(`\b[0-9.]+( [KM]iB)?\b`)
)

// shape returns a line of a table without what differs from run to run.
func shape(line string) string {
	line = gaps.ReplaceAllString(changing.ReplaceAllString(line, "…"), "  ")
	return counts.ReplaceAllString(ages.ReplaceAllString(line, "AGE"), "N")
}

// point gives the mirror to MAAS, on the command line and, as far as that goes, in
// the UI, and proves the keyring.
func (d *day) point() {
	imported := d.shell(d.asking.block("curl"))
	if !strings.Contains(imported, "good signatures, ") {
		d.t.Errorf("MAAS imports nothing: %s", imported)
	}
	d.shell("curl -fsS http://MIRROR:8080/ephemeral-v3/stable/streams/v1/index.sjson | gpgv --keyring $PWD/keyring.gpg")
	pasted := d.shell(d.asking.inline("curl -s http://MIRROR:8080/-/keyring.gpg | base64 -w0"))
	if want := d.shell("base64 -w0 keyring.gpg"); pasted != want {
		d.t.Errorf("the keyring to paste is %s, want %s", pasted, want)
	}
	seen := d.shell(d.asking.inline("gpg --show-keys keyring.gpg"))
	fingerprint := regexp.MustCompile(`\b[0-9A-F]{40}\b`)
	shown := fingerprint.FindString(d.shell(d.asking.inline("sudo -u oxbow oxbow key show")))
	if shown == "" || shown != fingerprint.FindString(seen) {
		d.t.Errorf("the key is %q on the mirror, and a client sees\n%s", shown, seen)
	}
}

// watch looks for what README says is worth an alert, and has failures told.
func (d *day) watch() {
	_, metrics := d.get("/-/metrics")
	for _, name := range regexp.MustCompile(`oxbow_\w+`).FindAllString(d.running.block("oxbow_sync_consecutive_failures"), -1) {
		overTLS := strings.HasPrefix(name, "oxbow_tls_") // which is not served here
		if !overTLS && !regexp.MustCompile(`(?m)^`+name+`[ {]`).MatchString(metrics) {
			d.t.Errorf("there is no metric %s", name)
		}
	}
	text, err := os.ReadFile(siteConfig)
	if err != nil {
		d.t.Fatal(err)
	}
	_, told, _ := strings.Cut(d.running.block("serve:\n  on_failure: "), "\n")
	text = bytes.Replace(text, []byte("  #on_failure: \"\"\n"), []byte(told), 1)
	if !bytes.Contains(text, []byte(told)) {
		d.t.Error("the configuration to begin with has no on_failure")
	}
	d.write("/tmp/told.yaml", text)
	d.shell("oxbow config check /tmp/told.yaml")
}

// change changes the configuration: one with a mistake is not taken, and one without
// is, without a restart.
func (d *day) change() {
	check, reload := d.running.inline("sudo -u oxbow oxbow config check"), d.running.inline("sudo systemctl reload oxbow")
	before := d.status()
	d.edit("max_versions: 2", "max_version: 1")
	if out, status := d.try(check); status != exitUsage || !strings.Contains(out, "did you mean `max_versions`?") {
		d.t.Errorf("a mistake in the configuration: status %d: %s", status, out)
	}
	d.shell(reload)
	d.await("readyz tells of the mistake", func() bool {
		status, body := d.get("/-/readyz")
		return status == http.StatusOK && strings.Contains(body, "note:") && strings.Contains(body, "max_version")
	})
	if !strings.Contains(d.systemd.journal.String(), "max_version") {
		d.t.Error("the log does not tell of the mistake")
	}
	d.edit("max_version: 1", "max_versions: 1")
	d.shell(check + "\n" + reload)
	d.await("the mistake is forgotten", func() bool { _, body := d.get("/-/readyz"); return !strings.Contains(body, "max_version") })
	d.shell(d.running.inline("sudo -u oxbow oxbow mirror sync"))
	if after := d.status(); after.Files >= before.Files || after.Kept != 2 {
		d.t.Errorf("with one version the snapshot has %d files and %d are kept; it had %d before", after.Files, after.Kept, before.Files)
	}
}

// syncAsRoot syncs as root, while the mirror is served and while it is not. No file
// of root's is left in the store.
func (d *day) syncAsRoot() {
	for _, lines := range []string{
		"sudo oxbow mirror sync",
		"sudo systemctl stop oxbow\nsudo oxbow mirror sync\nsudo systemctl start oxbow",
	} {
		before := d.status().Snapshot
		d.tree.AddDay()
		d.up.Publish(d.tree)
		d.shell(lines)
		if d.status().Snapshot == before {
			d.t.Errorf("nothing new is published by\n%s", lines)
		}
	}
	oxbow, err := credentialOf("oxbow")
	if err != nil {
		d.t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(siteStore, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != oxbow.Uid || st.Gid != oxbow.Gid {
			d.t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
		files++
		return nil
	})
	if err != nil || files < 50 {
		d.t.Errorf("%d files, %v", files, err)
	}
}

// stopAndStart stops: nobody listens then. Started again, what was published is served
// at once, and upstream is not asked for anything.
func (d *day) stopAndStart() {
	d.servedAgain("sudo systemctl stop oxbow", "sudo systemctl start oxbow")
}

// servedAgain is stopAndStart for lines that begin with a stop.
func (d *day) servedAgain(stop, start string) {
	d.t.Helper()
	const index = demoPath + "/streams/v1/index.sjson"
	_, before := d.get(index)
	d.up.Reset()
	if stop != "" {
		d.shell(stop)
		if status, _ := d.get(index); status != 0 {
			d.t.Errorf("status %d from a mirror that was stopped", status)
		}
	}
	d.shell(start)
	if status, body := d.get(index); status != http.StatusOK || body != before {
		d.t.Errorf("after the start: status %d and, changed in this way, %s", status, cmp.Diff(before, body))
	}
	if asked := d.up.Requests(); len(asked) > 0 {
		d.t.Errorf("upstream is asked before it is time: %v", asked)
	}
}

// upgrade installs a program beside one that runs.
func (d *day) upgrade() {
	d.servedAgain("", d.running.block("make build\nsudo install bin/oxbow /usr/local/bin/\nsudo systemctl restart"))
}

// refuseNewerFormat goes back to a program that is older than the store: whatever it is
// told to do it refuses, says what to do, and changes nothing. With its own store it
// works again.
func (d *day) refuseNewerFormat() {
	d.shell("sudo systemctl stop oxbow")
	known, err := os.ReadFile(siteStore + "/FORMAT")
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(siteStore+"/FORMAT", []byte("oxbow store 99\n"))
	before := d.stored()
	d.write("/tmp/key.asc", []byte("a private key"))
	d.shell("mkdir -p /tmp/tree/streams/v1\necho {} > /tmp/tree/streams/v1/index.json")
	for _, line := range storeCommands(d.t) {
		d.refused("oxbow", line)
	}
	d.refused("root", "oxbow mirror sync")
	if out, status := d.try("sudo systemctl start oxbow"); status == 0 {
		d.t.Errorf("the service is started: %s", out)
	}
	if !strings.Contains(d.systemd.journal.String(), "knows formats up to") {
		d.t.Error("the log does not tell why the service is not started")
	}
	if diff := cmp.Diff(before, d.stored()); diff != "" {
		d.t.Errorf("a store that was refused is changed (-before +after):\n%s", diff)
	}
	d.write(siteStore+"/FORMAT", known)
	d.shell("sudo systemctl start oxbow\nsudo -u oxbow oxbow mirror sync\nsudo -u oxbow oxbow store check --deep\nsudo systemctl stop oxbow")
}

// refused has a user run a command on a store of a newer format.
func (d *day) refused(user, line string) {
	d.t.Helper()
	const reason = `has format "oxbow store 99", but this oxbow knows formats up to `
	const remedy = "use the oxbow that wrote it, or a newer one"
	out, status := d.as(user, strings.Fields(line)...)
	if status != exitFailed || !strings.Contains(out, reason) || !strings.Contains(out, remedy) {
		d.t.Errorf("%s, as %s: status %d: %s", line, user, status, out)
	}
}

// storeCommands returns a line for every command that has to do with the store.
func storeCommands(t *testing.T) []string {
	t.Helper()
	operands := map[string]string{
		"lint":               "stable",
		"mirror drop":        "stable",
		"mirror import-tree": "/tmp/tree stable",
		"mirror export-tree": "stable /tmp/export",
		"snapshot show":      "0",
		"snapshot diff":      "0 1",
		"snapshot pin":       "0",
		"snapshot unpin":     "0",
		"snapshot rollback":  "stable",
		"snapshot hold":      "stable version_name=1",
		"key generate":       "--replace",
		"key import":         "--replace /tmp/key.asc",
		"bundle export":      "--out /tmp/bundle",
		"bundle import":      "/tmp/key.asc",
	}
	// The configuration and the program are the same whatever is stored.
	other := map[string]bool{"config check": true, "config show": true, "config init": true, "bundle inspect": true, "bundle verify": true, "demo": true, "completion": true, "version": true}
	var lines []string
	for _, c := range commands() {
		names := []string{c.Name}
		if len(c.Subcommands) > 0 {
			names = nil
			for _, below := range c.Subcommands {
				names = append(names, c.Name+" "+below.Name)
			}
		}
		for _, name := range names {
			if !other[name] {
				lines = append(lines, strings.TrimSpace("oxbow "+name+" "+operands[name]))
			}
		}
	}
	return lines
}
