package mirror

import (
	"context"
	"time"

	"oxbow/cache"
)

// Step does what a turn of Run does, and waits for what it started.
func (s *Scheduler) Step(ctx context.Context) {
	s.start(ctx)
	s.work.Wait()
	s.save()
}

// SetCommandTime changes the bound of commands.
func (s *Scheduler) SetCommandTime(d time.Duration) { s.commandTime = d }

// SetLastTime changes what is left of it at the end of Run.
func (s *Scheduler) SetLastTime(d time.Duration) { s.lastTime = d }

// Next returns the parts of a Standing that most tests look at.
func (s *Scheduler) Next(name string) (time.Time, int) {
	st := s.Standing(name)
	return st.Next, st.Failures
}

// TraceWithin is TraceCustody with so many bytes of custody volumes.
func TraceWithin(f *cache.Files, man *cache.Manifest, s Stream, room int64) (*Custody, error) {
	return traceCustody(f, man, tracedBy{stream: s, given: true, room: room}, time.Now())
}

// SetLimit changes how many bytes are held.
func (c *Custodian) SetLimit(n int64) { c.limit = n }

// ShownWithin returns what keeps clients from a snapshot, whose documents may have so many bytes.
func ShownWithin(ctx context.Context, f *cache.Files, man *cache.Manifest, signers []byte, room int64) ([]string, error) {
	t, err := shownTrust(man, Stream{}, signers)
	if err != nil {
		return nil, err
	}
	return shownWithin(ctx, f, man, t, time.Now(), room)
}
