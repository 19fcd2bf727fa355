package inventory

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attributes are those of a message of nfnetlink, after its own header.
func attributes(message []byte) iter.Seq2[int, []byte] {
	return split(message[min(len(message), nl.SizeofNfgenmsg):])
}

// split reads attributes one after the other, without copying.
func split(data []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for len(data) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(data))
			kind := int(binary.NativeEndian.Uint16(data[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if length < unix.SizeofNlAttr || length > len(data) {
				return
			}
			if !yield(kind, data[unix.SizeofNlAttr:length]) {
				return
			}
			data = data[min(len(data), (length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}

// text is a string of the kernel's, without the zero at its end.
func text(value []byte) string { return string(bytes.TrimRight(value, "\x00")) }
