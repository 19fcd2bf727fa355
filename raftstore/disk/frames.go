package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A snapshot file is a row of frames: length, CRC-32C of number and payload,
// payload. The checksum covers the frame's number, so frames cannot change
// places unnoticed. A frame of length 0 ends the row.
const (
	frameSize      = 64 << 10
	frameHeaderLen = 8
)

// ErrFrame means that a snapshot file is not what was written.
var ErrFrame = errors.New("snapshot frame is damaged")

func frameSum(number uint64, payload []byte) uint32 {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], number)
	return crc32.Update(crc32.Checksum(n[:], castagnoli), castagnoli, payload)
}

// frameWriter cuts a stream into frames.
type frameWriter struct {
	w      *bufio.Writer
	buf    []byte
	number uint64
	total  int64 // payload bytes so far
}

func newFrameWriter(w io.Writer) *frameWriter {
	return &frameWriter{w: bufio.NewWriterSize(w, frameSize+frameHeaderLen), buf: make([]byte, 0, frameSize)}
}

// Write implements io.Writer.
func (f *frameWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), frameSize-len(f.buf))
		f.buf = append(f.buf, p[:n]...)
		p = p[n:]
		if len(f.buf) == frameSize {
			if err := f.cut(); err != nil {
				return 0, err
			}
		}
	}
	f.total += int64(written)
	return written, nil
}

// cut writes what was gathered as one frame. An empty frame is the end.
func (f *frameWriter) cut() error {
	var header [frameHeaderLen]byte
	binary.LittleEndian.PutUint32(header[:], uint32(len(f.buf)))
	binary.LittleEndian.PutUint32(header[4:], frameSum(f.number, f.buf))
	if _, err := f.w.Write(header[:]); err != nil {
		return err
	}
	_, err := f.w.Write(f.buf)
	f.buf = f.buf[:0]
	f.number++
	return err
}

// finish writes the rest and the end.
func (f *frameWriter) finish() error {
	if len(f.buf) > 0 {
		if err := f.cut(); err != nil {
			return err
		}
	}
	if err := f.cut(); err != nil {
		return err
	}
	return f.w.Flush()
}

// frameReader gives the stream back, verified frame by frame. It reports io.EOF
// only after the end frame.
type frameReader struct {
	r      *bufio.Reader
	buf    []byte // unread part of frame
	frame  [frameSize]byte
	number uint64
	err    error
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, frameSize+frameHeaderLen)}
}

// next loads one frame. The result is valid until the next call.
func (f *frameReader) next() ([]byte, error) {
	var header [frameHeaderLen]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return nil, f.damaged(err)
	}
	n := binary.LittleEndian.Uint32(header[:])
	if n > frameSize {
		return nil, fmt.Errorf("%w: frame %d has an impossible length", ErrFrame, f.number)
	}
	payload := f.frame[:n]
	if _, err := io.ReadFull(f.r, payload); err != nil {
		return nil, f.damaged(err)
	}
	if frameSum(f.number, payload) != binary.LittleEndian.Uint32(header[4:]) {
		return nil, fmt.Errorf("%w: checksum of frame %d does not match", ErrFrame, f.number)
	}
	f.number++
	if n == 0 {
		return nil, io.EOF
	}
	return payload, nil
}

func (f *frameReader) damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the file ends within frame %d", ErrFrame, f.number)
	}
	return err
}

// Read implements io.Reader.
func (f *frameReader) Read(p []byte) (int, error) {
	if len(f.buf) == 0 && f.err == nil {
		f.buf, f.err = f.next()
	}
	if f.err != nil {
		return 0, f.err
	}
	n := copy(p, f.buf)
	f.buf = f.buf[n:]
	return n, nil
}
