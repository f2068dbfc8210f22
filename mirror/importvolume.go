package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// volume takes in what a volume has.
func (im *importing) volume(ctx context.Context, v Volume) error {
	r, err := bundle.NewReader(v.Reader, im.trust, im.m.now())
	if err != nil {
		return err
	}
	if im.in == nil || im.in.id != r.Contents.ID() {
		if err := im.begin(r); err != nil {
			return err
		}
	}
	in := im.in
	taken := Taken{Name: v.Name, Bundle: in.id.String(), Of: in.contents.Volumes}
	im.commits = new(errgroup.Group)
	im.commits.SetLimit(committing)
	err = im.members(ctx, in, r, &taken)
	if failed := im.commits.Wait(); err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	if taken.Volume = r.Number(); im.o.Taken != nil {
		im.o.Taken(taken)
	}
	return nil
}

// begin begins a bundle with the first of its volumes, unless it is refused.
func (im *importing) begin(r *bundle.Reader) error {
	in := &incoming{id: r.Contents.ID(), contents: r.Contents, manifests: map[cache.Digest]*cache.Manifest{}, aside: map[string][]byte{}, signers: map[string][]byte{}}
	im.ended = append(im.ended, im.m.imports(in.id))
	in.earlier = im.cameEarlier(in)
	if err := im.admit(in); err != nil {
		return im.refuse(in, err)
	}
	if err := im.remember(r); err != nil {
		return err
	}
	for _, m := range in.contents.Members {
		im.lease.Add(m.Content())
	}
	for _, n := range in.contents.Needs {
		im.lease.Add(n.Digest)
	}
	im.in = in
	return nil
}

// members takes in all that a volume has.
func (im *importing) members(ctx context.Context, in *incoming, r *bundle.Reader, taken *Taken) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		member, data, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = im.member(ctx, in, r, member, data, taken)
		}
		if err != nil {
			return err
		}
	}
}

// member takes in one member.
func (im *importing) member(ctx context.Context, in *incoming, r *bundle.Reader, m bundle.Member, data io.Reader, taken *Taken) error {
	switch m.Kind() {
	case bundle.KindSnapshot:
		return in.manifest(m, data)
	case bundle.KindDocument:
		return im.document(ctx, m, data)
	case bundle.KindFile:
		return im.file(ctx, r, m, data, taken)
	case bundle.KindVolume:
		return im.expect(ctx, in)
	}
	text, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	in.aside[m.Path] = text
	return nil
}

// manifest reads the manifest of a snapshot, once. All of them together are no longer than one may be.
func (in *incoming) manifest(m bundle.Member, data io.Reader) error {
	if in.manifests[m.Content()] != nil {
		return nil
	}
	text, err := bundle.Decompress(m, data, cache.MaxManifest-in.text)
	if err != nil {
		return err
	}
	in.text += int64(len(text))
	man, err := cache.ParseManifest(text)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", bundle.ErrDamaged, m.Path, err)
	}
	if stream, _ := m.Stream(); man.Stream != stream {
		return fmt.Errorf("%w: %s is one of stream %q", bundle.ErrDamaged, m.Path, man.Stream)
	}
	in.manifests[m.Content()] = man
	return nil
}

func (im *importing) document(ctx context.Context, m bundle.Member, data io.Reader) error {
	if im.m.store.Holds(m.Content()) {
		return nil
	}
	text, err := bundle.Decompress(m, data, streams.MaxDocument)
	if err != nil {
		return err
	}
	_, err = im.m.store.Put(ctx, text)
	return err
}

// committing is how many files are made durable while the next is read.
const committing = 2

// file takes in a file, whose content the store proves while the next one is read. One that is here is passed over.
func (im *importing) file(ctx context.Context, r *bundle.Reader, m bundle.Member, data io.Reader, taken *Taken) error {
	if im.m.store.Holds(m.Digest) {
		r.Skip()
		return nil
	}
	r.Proven()
	in, err := im.m.store.Receive(ctx, cache.Want{SHA256: m.Digest, Size: m.Size}, data)
	if errors.Is(err, cache.ErrExists) {
		r.Skip()
		return nil
	}
	if err != nil {
		return err
	}
	taken.Files++
	taken.Bytes += m.Size
	im.commits.Go(func() error {
		defer in.Close()
		_, err := in.Commit(ctx)
		if mismatch, ok := errors.AsType[*cache.MismatchError](err); ok {
			return fmt.Errorf("%w: the bytes of %s have the %s %s", bundle.ErrDamaged, m.Path, mismatch.Sum, mismatch.Got)
		}
		return err
	})
	return nil
}
