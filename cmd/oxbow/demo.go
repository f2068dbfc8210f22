package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "mirror and serve a small made-up stream, to try things out",
		Description: "The upstream is part of the program: it has the shape of images.maas.io and a few megabytes of noise\n" +
			"for images. It is synced into a store of its own and served on 127.0.0.1 until told to end.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "once", Usage: "fetch and prove everything that is served, print the counts and end"},
			jsonFlag(),
			// No environment: the demo must not get into the site's own store.
			&cli.StringFlag{Name: "store", Usage: "keep the demo's store in `DIR` (default: a temporary one)"},
		},
		Action: demo,
	}
}

// demoPath is the path of the tree, upstream and here, as at images.maas.io.
const demoPath = "/ephemeral-v3/stable"

// demoSelection leaves a part of the upstream out.
var demoSelection = []string{"os=ubuntu release=noble arch=amd64", "os=centos"}

// demoStore needs no room for images of gigabytes.
var demoStore = cache.Options{Reserve: 16 << 20, Ballast: -1}

// demoView is what `demo --json` prints.
type demoView struct {
	BootSource  string         `json:"boot_source"`
	KeyringURL  string         `json:"keyring_url"`
	KeyringFile string         `json:"keyring_file"`
	MAAS        string         `json:"maas"`        // the command line for a MAAS on this machine
	MAASRemote  string         `json:"maas_remote"` // and for one that cannot read the file, as in a snap
	Curl        []string       `json:"curl"`
	Synced      *mirror.Result `json:"synced"`
	Verified    *audit         `json:"verified,omitempty"` // with --once
}

func demo(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	log, err := logger(c, c.App.ErrWriter, slog.LevelWarn)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "oxbow-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	storeDir := c.String("store")
	if storeDir == "" {
		storeDir = filepath.Join(dir, "store")
	}
	o := demoStore
	o.Log, o.Owner = log, commandLine(os.Args)
	s, err := cache.Create(storeDir, &o)
	if err != nil {
		return err
	}
	owner := newOwner(s, log, false)
	defer func() { err = errors.Join(err, owner.close()) }()
	if names, err := s.Files().Streams(); err != nil || len(names) > 0 {
		if err == nil {
			err = fmt.Errorf("the store in %s has streams already (%s); the demo takes a new directory", storeDir, strings.Join(names, ", "))
		}
		return err
	}
	synced, key, err := demoSync(c.Context, owner.mirror)
	if err != nil {
		return err
	}
	v := &demoView{KeyringFile: filepath.Join(dir, "keyring.gpg"), Synced: synced}
	if err := os.WriteFile(v.KeyringFile, key, 0o644); err != nil {
		return err
	}
	return demoServe(c, owner, v)
}

// demoSync mirrors the embedded upstream, which lives as long as that takes,
// and returns the keyring of the result.
func demoSync(ctx context.Context, m *mirror.Mirror) (*mirror.Result, []byte, error) {
	tree := streamstest.MAAS(streamstest.Shape{Size: streamstest.DemoSize})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	upstream := &http.Server{Handler: http.StripPrefix(demoPath, streamstest.NewUpstream(tree))}
	go upstream.Serve(ln)
	defer upstream.Close()
	def, err := mirror.NewStream("http://" + ln.Addr().String() + demoPath)
	if err != nil {
		return nil, nil, err
	}
	def.Keyring, def.Select = tree.Keyring(), demoSelection
	if err := m.Define(def); err != nil {
		return nil, nil, err
	}
	res, err := m.Sync(ctx, def.Name, mirror.SyncOptions{})
	if err != nil {
		return nil, nil, err
	}
	key, err := m.Key()
	if err != nil {
		return nil, nil, err
	}
	return res, key.Public(), nil
}

// demoServe serves the store, prints how to use it and, with --once, uses it.
func demoServe(c *cli.Context, o *owner, v *demoView) error {
	ln, err := demoListen()
	if err != nil {
		return err
	}
	if err := v.describe("http://"+ln.Addr().String(), o.store.Files()); err != nil {
		return errors.Join(err, ln.Close())
	}
	if !c.Bool("once") {
		if err := v.print(c.App.Writer, c.Bool("json")); err != nil {
			return errors.Join(err, ln.Close())
		}
		fmt.Fprintln(c.App.ErrWriter, "oxbow: serving the demo until Ctrl-C")
		return newDaemon(o, ln, front{}, &site.Site{}).serve(c.Context)
	}
	ctx, stop := context.WithCancelCause(c.Context)
	served := make(chan error, 1)
	go func() { served <- newDaemon(o, ln, front{}, &site.Site{}).serve(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	v.Verified, err = auditTree(ctx, client, v.BootSource, v.KeyringURL)
	client.CloseIdleConnections()
	stop(stoppedBy(syscall.SIGTERM))
	if err := errors.Join(err, <-served); err != nil {
		return err
	}
	return v.print(c.App.Writer, c.Bool("json"))
}

// demoListen takes port 8080 or the next free one.
func demoListen() (net.Listener, error) {
	for port := 8080; port < 8180; port++ {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return ln, err
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// describe fills in how to use what is served at base.
func (v *demoView) describe(base string, files *cache.Files) error {
	current, err := files.Current(v.Synced.Stream)
	if err != nil {
		return err
	}
	m, err := files.Manifest(v.Synced.Stream, current.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindItem })
	item := m.Entries[i] // no snapshot is without one
	v.BootSource = base + demoPath + "/"
	v.KeyringURL = base + "/-/keyring.gpg"
	v.MAAS = fmt.Sprintf("maas $PROFILE boot-sources create url=%s keyring_filename=%s", v.BootSource, v.KeyringFile)
	v.MAASRemote = fmt.Sprintf("curl -fsSO %s && maas $PROFILE boot-sources create url=%s keyring_filename= keyring_data@=keyring.gpg", v.KeyringURL, v.BootSource)
	v.Curl = []string{
		"curl -fsS " + v.BootSource + "streams/v1/index.json",
		"curl -fsS " + v.BootSource + "streams/v1/index.sjson | gpgv --keyring " + v.KeyringFile,
		"curl -fsS " + v.BootSource + item.Path + " | sha256sum # " + item.Digest.String(),
	}
	return nil
}

func (v *demoView) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, v)
	}
	if v.Verified != nil {
		_, err := fmt.Fprintf(w, "demo: synced %s, %s, %s; verified over HTTP: %v\n", counted(v.Synced.Products, "product"),
			counted(v.Synced.Versions, "version"), counted(v.Synced.Items, "item"), v.Verified)
		return err
	}
	t := newTable(w)
	t.row("boot source", v.BootSource)
	t.row("keyring", v.KeyringURL)
	t.row("keyring file", v.KeyringFile)
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nMAAS on this machine, and one that cannot read that file, as in a snap:\n  %s\n  %s\nTry:\n  %s\n", v.MAAS, v.MAASRemote, strings.Join(v.Curl, "\n  "))
	return err
}
