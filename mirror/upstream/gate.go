package upstream

import (
	"context"
	"slices"
	"sync"
)

// A gate bounds what goes on at once. Those who wait are let in first come,
// first served, but for the patient: they get only the places that nobody
// else waits for.
type gate struct {
	mu      sync.Mutex // guards the rest
	free    int
	waiting [2][]chan struct{} // by patience
}

// enter waits for a place. The caller leaves after a nil error.
func (g *gate) enter(ctx context.Context, p patience) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.waiting[p] = append(g.waiting[p], turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.waiting[p], turn)
	if i >= 0 {
		g.waiting[p] = slices.Delete(g.waiting[p], i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // the place came at the same moment
		g.leave()
	}
	return context.Cause(ctx)
}

// leave passes the caller's place on.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, queue := range g.waiting {
		if len(queue) > 0 {
			close(queue[0])
			g.waiting[i] = queue[1:]
			return
		}
	}
	g.free++
}

// idle returns the number of places that nobody needs now.
func (g *gate) idle() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.free
}

// A patience says how to wait at a [gate].
type patience int

const (
	urgent  patience = iota // a document, a file
	patient                 // one more connection for a file that has one
)
