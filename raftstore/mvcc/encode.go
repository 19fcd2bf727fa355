package mvcc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The snapshot of a View: the live keys, then the history, so that watches
// can be resumed after a restart. A version which is both live and in the
// history, or in two events, is written once and shared again on reading.

const encodingVersion = 1

const (
	prevNone   = 0
	prevShared = 1 // the version another event of the history wrote
	prevInline = 2
)

const (
	eventDelete    = 0
	eventPutLive   = 1 // the version is the live one
	eventPutInline = 2
)

// endMark closes the encoding: without it a stream that ends early at the
// right place would look complete.
const endMark = 0x5afe

// ErrMalformed means that a snapshot's bytes make no sense.
var ErrMalformed = errors.New("malformed snapshot")

// maxBlob bounds one key or value when reading, against damaged lengths.
const maxBlob = 64 << 20

// Encode writes the view.
func (v *View) Encode(w *bufio.Writer) error {
	e := Encoder{w: w}
	e.Uint(encodingVersion)
	e.Uint(uint64(v.revision))
	e.Uint(uint64(v.compacted))
	e.Uint(uint64(v.keys))
	v.forest.ascend(span{}, func(kv *KeyValue) bool {
		e.KeyValue(kv)
		return e.err == nil
	})
	for r := v.oldest() + 1; r <= v.revision && e.err == nil; r++ {
		e.event(v, v.history.at(r))
	}
	e.Uint(endMark)
	return e.err
}

func (e *Encoder) event(v *View, ev *Event) {
	switch {
	case ev.Type == Delete:
		e.Uint(eventDelete)
	case v.forest.get(ev.KV.Key) == ev.KV:
		e.Uint(eventPutLive)
	default:
		e.Uint(eventPutInline)
		e.KeyValue(ev.KV)
	}
	switch {
	case ev.PrevKV == nil:
		e.Uint(prevNone)
	case ev.PrevKV.ModRevision > v.oldest():
		e.Uint(prevShared)
		e.Uint(uint64(ev.PrevKV.ModRevision))
	default:
		e.Uint(prevInline)
		e.KeyValue(ev.PrevKV)
	}
}

// Replace makes the state what was encoded and publishes it. On an error the
// state is as before.
func (s *State) Replace(r *bufio.Reader) error {
	fresh := &State{}
	if err := fresh.decode(r); err != nil {
		return err
	}
	s.revision, s.compacted = fresh.revision, fresh.compacted
	s.trees, s.dirty, s.roots = fresh.trees, fresh.dirty, nil
	s.history, s.historyBytes = fresh.history, fresh.historyBytes
	s.keys, s.bytes, s.expiries = fresh.keys, fresh.bytes, fresh.expiries
	s.publish(nil) // every tree is new
	return nil
}

func (s *State) decode(r *bufio.Reader) error {
	d := Decoder{r: r}
	if v := d.Uint(); d.err == nil && v != encodingVersion {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrMalformed, v, encodingVersion)
	}
	revision, compacted, keys := int64(d.Uint()), int64(d.Uint()), int64(d.Uint())
	if d.err == nil && (revision < FirstRevision || compacted < 0 || compacted > revision || keys < 0) {
		d.err = fmt.Errorf("%w: revision %d, compacted %d, %d keys", ErrMalformed, revision, compacted, keys)
	}
	if d.err != nil {
		return d.err
	}
	s.reset(revision, compacted)
	recent := map[int64]*KeyValue{} // live versions which the history has too
	oldest := max(compacted, FirstRevision)
	for i := int64(0); i < keys && d.err == nil; i++ {
		kv := d.KeyValue()
		if d.err != nil {
			break
		}
		s.insert(kv, nil)
		if kv.ModRevision > oldest {
			recent[kv.ModRevision] = kv
		}
	}
	for rev := oldest + 1; rev <= revision && d.err == nil; rev++ {
		if e, ok := s.decodeEvent(&d, rev, oldest, recent); ok {
			s.record(e)
		}
	}
	if mark := d.Uint(); d.err == nil && mark != endMark {
		d.err = fmt.Errorf("%w: no end mark", ErrMalformed)
	}
	return d.err
}

func (s *State) decodeEvent(d *Decoder, rev, oldest int64, recent map[int64]*KeyValue) (Event, bool) {
	e := Event{Type: Put, Revision: rev}
	switch kind := d.Uint(); kind {
	case eventDelete:
		e.Type = Delete
	case eventPutLive:
		e.KV = recent[rev]
	case eventPutInline:
		e.KV = d.KeyValue()
	default:
		d.fail("event %d has kind %d", rev, kind)
	}
	switch how := d.Uint(); how {
	case prevNone:
	case prevShared:
		at := int64(d.Uint())
		if at <= oldest || at >= rev {
			d.fail("event %d replaces revision %d", rev, at)
			break
		}
		e.PrevKV = s.history.at(at).KV
	case prevInline:
		e.PrevKV = d.KeyValue()
	default:
		d.fail("event %d has predecessor kind %d", rev, how)
	}
	if d.err != nil {
		return e, false
	}
	if e.Type == Delete && e.PrevKV != nil {
		e.KV = &KeyValue{Key: e.PrevKV.Key, ModRevision: rev}
	}
	if e.KV == nil {
		d.fail("event %d has no version", rev)
		return e, false
	}
	return e, true
}

// Encoder writes the primitive parts of snapshots and remembers the first
// error.
type Encoder struct {
	w       *bufio.Writer
	err     error
	scratch [binary.MaxVarintLen64]byte
}

// NewEncoder writes to w.
func NewEncoder(w *bufio.Writer) *Encoder { return &Encoder{w: w} }

// Err is the first error of any write.
func (e *Encoder) Err() error { return e.err }

// Uint writes a number.
func (e *Encoder) Uint(v uint64) {
	if e.err == nil {
		_, e.err = e.w.Write(e.scratch[:binary.PutUvarint(e.scratch[:], v)])
	}
}

// KeyValue writes a version.
func (e *Encoder) KeyValue(kv *KeyValue) {
	e.Uint(uint64(len(kv.Key)))
	if e.err == nil {
		_, e.err = e.w.WriteString(kv.Key)
	}
	e.Uint(uint64(len(kv.Value)))
	if e.err == nil {
		_, e.err = e.w.Write(kv.Value)
	}
	e.Uint(uint64(kv.CreateRevision))
	e.Uint(uint64(kv.ModRevision))
	e.Uint(uint64(kv.Version))
	e.Uint(uint64(kv.ExpiresAt))
}

// Decoder reads what an Encoder wrote and remembers the first error.
type Decoder struct {
	r   *bufio.Reader
	err error
}

// NewDecoder reads from r.
func NewDecoder(r *bufio.Reader) *Decoder { return &Decoder{r: r} }

// Err is the first error of any read.
func (d *Decoder) Err() error { return d.err }

func (d *Decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
}

// Uint reads a number.
func (d *Decoder) Uint() uint64 {
	if d.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(d.r)
	if err != nil {
		d.short(err)
	}
	return v
}

func (d *Decoder) short(err error) {
	if errors.Is(err, io.EOF) {
		d.fail("it ends too early")
		return
	}
	d.err = err
}

func (d *Decoder) blob() []byte {
	n := d.Uint()
	if n > maxBlob {
		d.fail("a part of %d bytes", n)
	}
	if d.err != nil {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.short(err)
	}
	return b
}

// KeyValue reads a version.
func (d *Decoder) KeyValue() *KeyValue {
	kv := &KeyValue{Key: string(d.blob()), Value: d.blob()}
	kv.CreateRevision, kv.ModRevision = int64(d.Uint()), int64(d.Uint())
	kv.Version, kv.ExpiresAt = int64(d.Uint()), int64(d.Uint())
	return kv
}
