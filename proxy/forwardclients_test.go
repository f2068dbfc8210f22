package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// program runs a program of the system with nothing of the environment but PATH and what
// is said, and returns what it prints.
func program(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, path, args...)
	c.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// Clients take the proxy as they take others: by option, by environment, for http and
// https.
func TestRealProxyClients(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "secure") }))
	defer secure.Close()
	f := newForwarded(t, Options{}, ubuntu, secure.Listener.Addr().String())
	f.listen(t)
	proxy := "http://" + f.addr
	const url, refused = "http://images.maas.io/ephemeral-v3/stable/noble/squashfs", "serve.forward_proxy.allow"
	const script = `import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")
except urllib.error.HTTPError as e:
    print(e.code, e.read().decode(), end="")
except OSError as e:
    print(e, end="")`
	for _, test := range []struct {
		env  []string
		args []string
		want string
	}{
		{nil, []string{"curl", "-sS", "-x", proxy, url}, "the squashfs"},
		{nil, []string{"curl", "-sS", "-r", "4-", "-x", proxy, url}, "squashfs"},
		{[]string{"http_proxy=" + proxy}, []string{"curl", "-sS", url}, "the squashfs"},
		{nil, []string{"curl", "-sS", "-x", proxy, "http://example.com/"}, refused},
		{nil, []string{"curl", "-sS", "-p", "-x", proxy, "http://images.maas.io/"}, "403"},
		{nil, []string{"curl", "-sSk", "--noproxy", "", "-x", proxy, secure.URL}, "secure"},
		{nil, []string{"curl", "-sSk", "-x", proxy, "https://images.maas.io/ephemeral-v3/stable/"}, "403"},
		{[]string{"http_proxy=" + proxy}, []string{"python3", "-c", script, url}, "the squashfs"},
		{[]string{"http_proxy=" + proxy}, []string{"python3", "-c", script, "http://example.com/"}, refused},
		{[]string{"https_proxy=" + proxy}, []string{"python3", "-c", script, "https://example.com/"}, "403 Forbidden"},
	} {
		t.Run(test.args[0], func(t *testing.T) {
			if out, _ := program(t, test.env, test.args[0], test.args[1:]...); !strings.Contains(out, test.want) {
				t.Errorf("%q prints %q, want %s", test.args, out, test.want)
			}
		})
	}
}

// apt, which MAAS gives the same http_proxy, gets what is allowed and is told what would
// allow the rest.
func TestApt(t *testing.T) {
	var mu sync.Mutex // guards asked
	var asked []string
	far := newFar(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Path+" "+r.Header.Get("Via"))
		if r.URL.Path != "/ubuntu/flat/Packages" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "Package: oxbow-test\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nFilename: ./none.deb\nSize: 1\nSHA256: "+strings.Repeat("0", 64)+"\nDescription: test\n")
	})
	for _, test := range []struct {
		allow []string
		want  string // of apt's output
		asked bool
	}{
		{nil, "403  Forbidden", false},
		{[]string{"http://" + far + "/debian/"}, "403  Forbidden", false},
		{[]string{far}, "Reading package lists", true},
		{[]string{"http://" + far + "/ubuntu/"}, "Reading package lists", true},
	} {
		asked = nil
		f := newForwarded(t, Options{}, ubuntu, test.allow...)
		f.listen(t)
		out, err := aptUpdate(t, far, "http://"+f.addr)
		if !strings.Contains(out, test.want) || (err == nil) != test.asked {
			t.Errorf("allowed %q, apt ends with %v: %s", test.allow, err, out)
		}
		through := slices.ContainsFunc(asked, func(a string) bool { return strings.HasPrefix(a, "/ubuntu/flat/Packages 1.1 oxbow-") })
		if through != test.asked || !test.asked && len(asked) > 0 {
			t.Errorf("allowed %q: the host is asked for %q", test.allow, asked)
		}
	}
}

// aptUpdate has apt read a repository through a proxy, in a folder of its own.
func aptUpdate(t *testing.T, host, proxy string) (string, error) {
	dir := t.TempDir()
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(dir+"/"+sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(t, dir+"/state/status", "")
	rewrite(t, dir+"/etc/sources.list", "deb [trusted=yes] http://"+host+"/ubuntu/ flat/\n")
	args := []string{"update"}
	for _, o := range []string{"Acquire::http::Proxy=" + proxy, "Dir::State=" + dir + "/state", "Dir::State::status=" + dir + "/state/status", "Dir::Cache=" + dir + "/cache",
		"Dir::Etc=" + dir + "/etc", "Dir::Etc::SourceList=" + dir + "/etc/sources.list", "Dir::Etc::SourceParts=-", "Dir::Log=" + dir, "APT::Sandbox::User=",
		"Acquire::Retries=0", "Acquire::Languages=none", "Acquire::AllowInsecureRepositories=true", "APT::Update::Error-Mode=any"} {
		args = append(args, "-o", o)
	}
	return program(t, []string{"APT_CONFIG=" + dir + "/state/status"}, "apt-get", args...)
}
