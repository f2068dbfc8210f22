package upstream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// The urgent go before the patient, and otherwise first come is first served.
func TestGateOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{free: 1}
		if err := g.enter(t.Context(), urgent); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var got []string
		for _, who := range []struct {
			name     string
			patience patience
		}{{"p1", patient}, {"u1", urgent}, {"p2", patient}, {"u2", urgent}} {
			go func() {
				if g.enter(t.Context(), who.patience) == nil {
					mu.Lock()
					got = append(got, who.name)
					mu.Unlock()
					g.leave()
				}
			}()
			synctest.Wait()
		}
		if g.idle() != 0 {
			t.Errorf("%d places idle while some wait", g.idle())
		}
		g.leave()
		synctest.Wait()
		if want := []string{"u1", "u2", "p1", "p2"}; !slices.Equal(got, want) {
			t.Errorf("let in %v, want %v", got, want)
		}
		if g.idle() != 1 {
			t.Errorf("%d places idle at the end, want 1", g.idle())
		}
	})
}

// Who gives up waiting takes no place along, whenever that happens.
func TestGateGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("enough")
		g := &gate{free: 1}
		if err := g.enter(t.Context(), urgent); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			ctx, cancel := context.WithCancelCause(t.Context())
			result := make(chan error)
			go func() { result <- g.enter(ctx, urgent) }()
			synctest.Wait()
			go cancel(reason)
			go g.leave()
			if err := <-result; err == nil {
				synctest.Wait()
			} else if !errors.Is(err, reason) {
				t.Fatalf("enter: %v, want %v", err, reason)
			} else {
				synctest.Wait()
				if err := g.enter(t.Context(), urgent); err != nil {
					t.Fatal(err)
				}
			}
		}
		g.leave()
		if g.idle() != 1 {
			t.Errorf("%d places idle at the end, want 1", g.idle())
		}
	})
}
