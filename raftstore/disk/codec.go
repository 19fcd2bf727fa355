package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// codecID names this record format in segment headers; raft-wal reserves the
// numbers below 1<<16.
const codecID uint64 = 0x736b_0001

const recordVersion = 1

// ErrRecord means that a log record is not what was written.
var ErrRecord = errors.New("log record is damaged")

// codec writes records as: version, CRC-32C of all that follows, index, term,
// type, time of appending, extensions, data. raft-wal itself checks a sum only
// for the last batch when it opens the log; here every read is checked.
type codec struct{}

// ID implements wal.Codec.
func (codec) ID() uint64 { return codecID }

// Encode implements wal.Codec.
func (codec) Encode(l *raft.Log, w io.Writer) error {
	b := make([]byte, 5, 5+5*binary.MaxVarintLen64+len(l.Extensions)+len(l.Data))
	b = binary.AppendUvarint(b, l.Index)
	b = binary.AppendUvarint(b, l.Term)
	b = append(b, byte(l.Type))
	b = binary.AppendVarint(b, appendedNanos(l.AppendedAt))
	b = binary.AppendUvarint(b, uint64(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	b[0] = recordVersion
	binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
	_, err := w.Write(b)
	return err
}

func appendedNanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Decode implements wal.Codec. Nothing in l refers to b afterwards.
func (codec) Decode(b []byte, l *raft.Log) error {
	if len(b) < 5 || b[0] != recordVersion {
		return fmt.Errorf("%w: it does not begin like one", ErrRecord)
	}
	body := b[5:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[1:]) {
		return fmt.Errorf("%w: checksum does not match", ErrRecord)
	}
	var bad bool
	uvarint := func() uint64 {
		v, n := binary.Uvarint(body)
		if n <= 0 {
			bad = true
			return 0
		}
		body = body[n:]
		return v
	}
	*l = raft.Log{Index: uvarint(), Term: uvarint()}
	if bad || len(body) == 0 {
		return fmt.Errorf("%w: header is cut", ErrRecord)
	}
	l.Type, body = raft.LogType(body[0]), body[1:]
	nanos, n := binary.Varint(body)
	if n <= 0 {
		return fmt.Errorf("%w: header is cut", ErrRecord)
	}
	body = body[n:]
	if nanos != 0 {
		l.AppendedAt = time.Unix(0, nanos)
	}
	extensions := uvarint()
	if bad || extensions > uint64(len(body)) {
		return fmt.Errorf("%w: header is cut", ErrRecord)
	}
	if extensions > 0 {
		l.Extensions = append([]byte(nil), body[:extensions]...)
	}
	l.Data = append([]byte(nil), body[extensions:]...)
	return nil
}
