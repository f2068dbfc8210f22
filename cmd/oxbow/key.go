package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
)

func keyShowCommand() *cli.Command {
	return &cli.Command{Name: "show", Usage: "print the signing key's fingerprint, name and date", Flags: []cli.Flag{jsonFlag()}, Action: keyShow}
}

func keyExportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "print the keyring that clients need, binary as gpgv and MAAS want it",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "armor", Usage: "as text, to read or to paste"},
			&cli.BoolFlag{Name: "secret", Usage: "the private key instead, to keep it safe or to move it; always text"},
		},
		Action: keyExport,
	}
}

func keyGenerateCommand() *cli.Command {
	return &cli.Command{
		Name: "generate", Usage: "make a signing key (the first sync does that by itself)",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "type", Usage: "make a key of `TYPE` ed25519 or rsa4096", Value: string(streams.Ed25519)},
			replaceFlag(),
		},
		Action: keyGenerate,
	}
}

func keyImportCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "make an OpenPGP private key, unencrypted, the signing key; or trust bundles that a public one signs", ArgsUsage: "FILE|-",
		Flags: []cli.Flag{replaceFlag()}, Action: keyImport,
	}
}

func replaceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "replace", Usage: "also if there is one already: clients that trust the old one must get the new one first"}
}

// keyView is what `key show --json` prints.
type keyView struct {
	Fingerprint string    `json:"fingerprint"`
	UserID      string    `json:"user_id"`
	Created     time.Time `json:"created"`
}

func viewKey(key *streams.SigningKey) (keyView, error) {
	ring, err := streams.ReadKeyring(key.Public())
	if err != nil {
		return keyView{}, err
	}
	k := ring.Keys()[0]
	return keyView{k.Fingerprint, k.UserID, k.Created}, nil
}

func printKey(w io.Writer, key *streams.SigningKey, asJSON bool) error {
	v, err := viewKey(key)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, v)
	}
	t := newTable(w)
	t.row("fingerprint", v.Fingerprint)
	t.row("name", v.UserID)
	t.row("created", stamp(v.Created))
	return t.flush()
}

func keyShow(c *cli.Context) error {
	_, key, err := readKey(c)
	if err != nil {
		return err
	}
	return printKey(c.App.Writer, key, c.Bool("json"))
}

func keyExport(c *cli.Context) error {
	out, err := exportedKey(c)
	if err == nil {
		_, err = c.App.Writer.Write(out)
	}
	return err
}

// exportedKey returns the private key, or the keyring that clients need: a site that only imports has no key of its own.
func exportedKey(c *cli.Context) ([]byte, error) {
	files, key, err := readKey(c)
	switch {
	case files == nil || c.Bool("secret") && err != nil:
		return nil, err
	case c.Bool("secret"):
		return key.Secret(), nil
	}
	ring, failed := mirror.Keyring(files)
	switch {
	case failed != nil:
		return nil, failed
	case len(ring) == 0 || err != nil && mirror.Signs(files):
		return nil, err
	case c.Bool("armor"):
		return streams.ArmorKeyring(ring), nil
	}
	return ring, nil
}

// restoreKey is what to do when the key is gone that clients trust.
const restoreKey = "put keys/site.asc of the store back from your copy, or give that to `oxbow key import`; clients would not trust a new key"

// readKey reads the signing key of a store that another process may have.
func readKey(c *cli.Context) (*cache.Files, *streams.SigningKey, error) {
	if err := noArgs(c); err != nil {
		return nil, nil, err
	}
	files, err := openFiles(c)
	if err != nil {
		return nil, nil, err
	}
	key, err := mirror.SiteKey(files)
	if errors.Is(err, cache.ErrMiss) {
		switch st, err := files.Stats(c.Context); {
		case err != nil || len(st.Streams) == 0:
		case !mirror.Signs(files):
			return files, nil, &hinted{errors.New("the site has no signing key: all that it publishes was signed by upstream, or by the sites whose bundles came"),
				"a server has the keyring for these at /-/keyring.gpg; the first sync of a stream with `advertise: selected` makes a key, and so does `oxbow key generate`"}
		default:
			return files, nil, &hinted{errors.New("the signing key is gone, and what is published was signed with it"), restoreKey}
		}
		return files, nil, &hinted{errors.New("the site has no signing key yet"), "the first sync makes one, and so does `oxbow key generate`"}
	}
	return files, key, err
}

func keyGenerate(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	t := streams.KeyType(c.String("type"))
	if t != streams.Ed25519 && t != streams.RSA4096 {
		return usagef(c, "unknown key type %q; there is %s, %s", t, streams.Ed25519, streams.RSA4096)
	}
	return perform(c, &generateWork{Type: t, Replace: c.Bool("replace")}, cache.Create)
}

type generateWork struct {
	Type    streams.KeyType
	Replace bool
}

func (w *generateWork) do(_ context.Context, o *owner, out *screen) error {
	key, err := o.mirror.GenerateKey(w.Type, w.Replace)
	if err != nil {
		return err
	}
	return printKey(out.stdout, key, false)
}

// maxKeyFile bounds the file of a private key in bytes.
const maxKeyFile = 1 << 20

func keyImport(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef(c, "want one file, or - for standard input")
	}
	secret, err := readInput(c.Args().First(), maxKeyFile)
	if err != nil {
		return err
	}
	return perform(c, &importWork{Name: c.Args().First(), Secret: secret, Replace: c.Bool("replace")}, cache.Create)
}

type importWork struct {
	Name    string // of the file
	Secret  []byte
	Replace bool
}

func (w *importWork) do(_ context.Context, o *owner, out *screen) error {
	if _, err := streams.ReadKeyring(w.Secret); err == nil && !w.Replace && !streams.HasSecret(w.Secret) {
		return w.trust(o, out)
	}
	key, err := o.mirror.ImportKey(w.Secret, w.Replace)
	if err != nil {
		return fmt.Errorf("cannot import %s: %w", w.Name, err)
	}
	return printKey(out.stdout, key, false)
}

// trust has bundles be trusted that a public key signs.
func (w *importWork) trust(o *owner, out *screen) error {
	keys, err := o.mirror.TrustKeys(w.Secret)
	if err != nil {
		return fmt.Errorf("cannot import %s: %w", w.Name, err)
	}
	for _, k := range keys {
		printLine(out.stdout, "bundles are trusted that %s signs (%s)", k.Fingerprint, k.UserID)
	}
	return nil
}

// readInput reads a file, or standard input for "-", of at most limit bytes.
func readInput(name string, limit int64) ([]byte, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			if e, ok := errors.AsType[*fs.PathError](err); ok {
				err = e.Err // without the name
			}
			return nil, fmt.Errorf("cannot read %s: %w", name, err)
		}
		defer f.Close()
	}
	return readAll(f, name, limit)
}

// readAll reads what has a name to its end, at most limit bytes.
func readAll(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return data, nil
}
