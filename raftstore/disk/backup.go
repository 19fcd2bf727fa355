package disk

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// A backup is one self-contained file for people to carry away:
//
//	magic | length, CRC-32C, JSON header | frames | payload size, SHA-256, CRC-32C
//
// The frames are those of a snapshot. The SHA-256 covers header and payload,
// so that parts of two backups cannot be mistaken for one.
const (
	backupMagic      = "skiff-store-snapshot-1\n"
	backupTrailerLen = 8 + sha256.Size + 4
)

// ErrBackup means that a backup file is not what was written.
var ErrBackup = errors.New("the snapshot file is damaged or not complete")

// WriteBackup writes a backup to w: header is encoded as JSON, body writes the
// payload. It returns the SHA-256 of header and payload.
func WriteBackup(w io.Writer, header any, body func(io.Writer) error) ([]byte, error) {
	encoded, err := json.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot header: %w", err)
	}
	b := []byte(backupMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(encoded)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(encoded, castagnoli))
	if _, err := w.Write(append(b, encoded...)); err != nil {
		return nil, fmt.Errorf("write snapshot header: %w", err)
	}
	sum := sha256.New()
	_, _ = sum.Write(encoded) // a hash never fails
	frames := newFrameWriter(w)
	if err := body(io.MultiWriter(frames, sum)); err != nil {
		return nil, err
	}
	if err := frames.finish(); err != nil {
		return nil, fmt.Errorf("write snapshot: %w", err)
	}
	digest := sum.Sum(nil)
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(frames.total))
	trailer = append(trailer, digest...)
	trailer = binary.LittleEndian.AppendUint32(trailer, crc32.Checksum(trailer, castagnoli))
	if _, err := w.Write(trailer); err != nil {
		return nil, fmt.Errorf("write snapshot trailer: %w", err)
	}
	return digest, nil
}

// ReadBackup reads a backup from r to its end and verifies all of it. The
// header is decoded into header, then body, which may be nil, gets the payload.
// What body was given is proved only when ReadBackup returns without an error.
func ReadBackup(r io.Reader, header any, body func(io.Reader) error) ([]byte, error) {
	source := bufio.NewReaderSize(r, frameSize+frameHeaderLen)
	encoded, err := readBackupHeader(source)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(encoded, header); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrBackup, err)
	}
	payload := &backupPayload{frames: newFrameReader(source), sum: sha256.New()}
	_, _ = payload.sum.Write(encoded)
	if body != nil {
		if err := body(payload); err != nil {
			return nil, err
		}
	}
	if _, err := io.Copy(io.Discard, payload); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	digest := payload.sum.Sum(nil)
	if err := payload.checkTrailer(source, digest); err != nil {
		return nil, err
	}
	if _, err := source.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows its end (%v)", ErrBackup, err)
	}
	return digest, nil
}

func readBackupHeader(r io.Reader) ([]byte, error) {
	fixed := make([]byte, len(backupMagic)+8)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return nil, fmt.Errorf("%w: it is too short to be one: %w", ErrBackup, err)
	}
	if string(fixed[:len(backupMagic)]) != backupMagic {
		return nil, fmt.Errorf("%w: it does not begin like a snapshot of this version", ErrBackup)
	}
	n := binary.LittleEndian.Uint32(fixed[len(backupMagic):])
	if n > maxHeader {
		return nil, fmt.Errorf("%w: its header has an impossible length", ErrBackup)
	}
	encoded := make([]byte, n)
	if _, err := io.ReadFull(r, encoded); err != nil {
		return nil, fmt.Errorf("%w: it ends within its header: %w", ErrBackup, err)
	}
	if crc32.Checksum(encoded, castagnoli) != binary.LittleEndian.Uint32(fixed[len(backupMagic)+4:]) {
		return nil, fmt.Errorf("%w: the checksum of its header does not match", ErrBackup)
	}
	return encoded, nil
}

// backupPayload is the payload, counted and summed as it is read.
type backupPayload struct {
	frames *frameReader
	sum    hash.Hash
	total  uint64
}

// Read implements io.Reader.
func (p *backupPayload) Read(b []byte) (int, error) {
	n, err := p.frames.Read(b)
	_, _ = p.sum.Write(b[:n])
	p.total += uint64(n)
	return n, err
}

func (p *backupPayload) checkTrailer(r io.Reader, digest []byte) error {
	var trailer [backupTrailerLen]byte
	if _, err := io.ReadFull(r, trailer[:]); err != nil {
		return fmt.Errorf("%w: it ends within its trailer: %w", ErrBackup, err)
	}
	const summed = backupTrailerLen - 4
	if crc32.Checksum(trailer[:summed], castagnoli) != binary.LittleEndian.Uint32(trailer[summed:]) {
		return fmt.Errorf("%w: the checksum of its trailer does not match", ErrBackup)
	}
	if total := binary.LittleEndian.Uint64(trailer[:]); total != p.total {
		return fmt.Errorf("%w: it holds %d bytes of state, %d were written", ErrBackup, p.total, total)
	}
	if string(trailer[8:summed]) != string(digest) {
		return fmt.Errorf("%w: its SHA-256 does not match", ErrBackup)
	}
	return nil
}
