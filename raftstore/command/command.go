package command

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// Kind says what a command does.
type Kind uint8

// The kinds of commands. Their numbers are on disk.
const (
	// Put writes Key.
	Put Kind = 1
	// Delete removes Key.
	Delete Kind = 2
	// Compact forgets history up to Revision.
	Compact Kind = 3
	// Expire deletes up to Limit keys whose time came before Now.
	Expire Kind = 4
	// Epoch opens a leader's term: once applied, everything its predecessors
	// committed is applied.
	Epoch Kind = 5
	// Jump moves the revision forward by Revision and forgets all history.
	Jump Kind = 6
	// PutFor writes Key, for TTL seconds.
	PutFor Kind = 7
)

// String names the kind for people.
func (k Kind) String() string {
	names := [...]string{"", "put", "delete", "compact", "expire", "epoch", "jump", "put for a while"}
	if k >= Put && k <= PutFor {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Command is one request to the state machine. Which fields count depends on
// the Kind.
type Command struct {
	Kind     Kind
	Sequence uint64 // unique within the batch's Origin
	Key      string
	Value    []byte
	Expect   int64 // modification revision, or mvcc.AnyRevision
	// ExpiresAt and Now are seconds of the Unix clock as the proposer read it:
	// the state machine never looks at a clock. Put with ExpiresAt is found in
	// old logs only.
	ExpiresAt int64
	Now       int64
	// TTL in seconds counts from when the leader appended the batch to its log, by
	// the leader's clock, which also says when it has passed: a proposer whose
	// clock is off does no harm.
	TTL      int64
	Limit    int64
	Revision int64
}

// Size is about how many bytes the command takes in the log.
func (c *Command) Size() int { return len(c.Key) + len(c.Value) + 32 }

// Outcome classifies a Result.
type Outcome uint8

// The outcomes. Their numbers are in snapshots.
const (
	// Done: the command took effect.
	Done Outcome = 1
	// CompareFailed: the expectation did not hold, nothing changed.
	CompareFailed Outcome = 2
	// Compacted and Future refuse a Compact.
	Compacted Outcome = 3
	Future    Outcome = 4
	// Forgotten: the command is a repetition whose proposer had already
	// acknowledged the answer. It was not executed again.
	Forgotten Outcome = 5
)

// Result is the state machine's answer to one command.
type Result struct {
	Outcome Outcome
	// Revision of the mutation, or of the store when nothing changed.
	Revision int64
	// KV is the new version, or the current one when the compare failed.
	KV *mvcc.KeyValue
	// Prev is the version before the mutation.
	Prev *mvcc.KeyValue
	// Count is how many keys an Expire deleted.
	Count int64
}

// Batch is the content of one log entry.
type Batch struct {
	// Origin identifies one run of one member.
	Origin uint64
	// Acknowledged promises that the proposer knows the results of all commands
	// up to this sequence, so they need not be remembered.
	Acknowledged uint64
	Commands     []Command
}

const version = 1

// ErrMalformed means that bytes are not a batch this version understands.
var ErrMalformed = errors.New("malformed command batch")

// Encode appends the batch to b.
func (t *Batch) Encode(b []byte) []byte {
	b = append(b, version)
	b = binary.LittleEndian.AppendUint64(b, t.Origin)
	b = binary.AppendUvarint(b, t.Acknowledged)
	b = binary.AppendUvarint(b, uint64(len(t.Commands)))
	for i := range t.Commands {
		b = t.Commands[i].encode(b)
	}
	return b
}

func (c *Command) encode(b []byte) []byte {
	b = append(b, byte(c.Kind))
	b = binary.AppendUvarint(b, c.Sequence)
	switch c.Kind {
	case Put, PutFor:
		b = appendString(b, c.Key)
		b = appendString(b, c.Value)
		b = binary.AppendVarint(b, c.Expect)
		if c.Kind == PutFor {
			return binary.AppendUvarint(b, uint64(c.TTL))
		}
		b = binary.AppendUvarint(b, uint64(c.ExpiresAt))
	case Delete:
		b = appendString(b, c.Key)
		b = binary.AppendVarint(b, c.Expect)
	case Compact, Jump:
		b = binary.AppendUvarint(b, uint64(c.Revision))
	case Expire:
		b = binary.AppendUvarint(b, uint64(c.Now))
		b = binary.AppendUvarint(b, uint64(c.Limit))
	}
	return b
}

func appendString[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Decode reads a batch. Keys and values are copied out of b, which may be
// reused.
func Decode(b []byte) (*Batch, error) {
	d := reader{b: b}
	if v := d.byte(); v != version {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrMalformed, v, version)
	}
	t := &Batch{Origin: d.uint64(), Acknowledged: d.uvarint()}
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)) { // a command takes more than a byte
		return nil, fmt.Errorf("%w: header", ErrMalformed)
	}
	t.Commands = make([]Command, n)
	for i := range t.Commands {
		c := &t.Commands[i]
		c.decode(&d)
		if d.bad {
			return nil, fmt.Errorf("%w: command %d of %d", ErrMalformed, i+1, n)
		}
	}
	if len(d.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last command", ErrMalformed, len(d.b))
	}
	return t, nil
}

// Check reports what Decode would say of b, without keeping anything.
func Check(b []byte) error {
	d := reader{b: b}
	if v := d.byte(); v != version {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrMalformed, v, version)
	}
	d.uint64()
	d.uvarint()
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		skip(&d)
	}
	if d.bad || len(d.b) > 0 {
		return ErrMalformed
	}
	return nil
}

// skip reads a command without its key and value.
func skip(d *reader) {
	kind := Kind(d.byte())
	d.uvarint()
	switch kind {
	case Put, PutFor:
		d.bytes()
		d.bytes()
		d.varint()
		d.uvarint()
	case Delete:
		d.bytes()
		d.varint()
	case Compact, Jump:
		d.uvarint()
	case Expire:
		d.uvarint()
		d.uvarint()
	case Epoch:
	default:
		d.bad = true
	}
}

func (c *Command) decode(d *reader) {
	c.Kind = Kind(d.byte())
	c.Sequence = d.uvarint()
	switch c.Kind {
	case Put, PutFor:
		c.Key = string(d.bytes())
		c.Value = append([]byte{}, d.bytes()...)
		c.Expect = d.varint()
		if c.Kind == PutFor {
			c.TTL = int64(d.uvarint())
		} else {
			c.ExpiresAt = int64(d.uvarint())
		}
	case Delete:
		c.Key = string(d.bytes())
		c.Expect = d.varint()
	case Compact, Jump:
		c.Revision = int64(d.uvarint())
	case Expire:
		c.Now = int64(d.uvarint())
		c.Limit = int64(d.uvarint())
	case Epoch:
	default:
		d.bad = true
	}
}

// reader consumes b and remembers whether it ever ran short.
type reader struct {
	b   []byte
	bad bool
}

func (d *reader) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *reader) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *reader) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *reader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.take(uint64(n))
	return v
}

func (d *reader) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.take(uint64(n))
	return v
}

func (d *reader) bytes() []byte { return d.take(d.uvarint()) }
