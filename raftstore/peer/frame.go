package peer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// A frame is a length, a number which belongs to one call, and the bytes of its
// request or answer.
const (
	frameHeader = 12
	// maxFrame bounds what is believed of a length.
	maxFrame = 16 << 20
)

// frame makes one write of a frame, so that it is one TLS record.
func frame(number uint64, content []byte) []byte {
	b := make([]byte, frameHeader, frameHeader+len(content))
	binary.LittleEndian.PutUint32(b, uint32(len(content)))
	binary.LittleEndian.PutUint64(b[4:], number)
	return append(b, content...)
}

func readFrame(r *bufio.Reader) (number uint64, content []byte, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(header[:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes, the limit is %d", size, maxFrame)
	}
	content = make([]byte, size)
	if _, err := io.ReadFull(r, content); err != nil {
		return 0, nil, fmt.Errorf("read a frame of %d bytes: %w", size, err)
	}
	return binary.LittleEndian.Uint64(header[4:]), content, nil
}
