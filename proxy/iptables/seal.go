package iptables

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	nft "github.com/skiff-run/skiff/proxy/nftables/inventory"
)

// seal is a mark of the kernel's that is different after others changed
// something: of nf_tables a generation, of the legacy tables their sizes.
type seal struct {
	generation uint32
	sizes      [3]tableInfo
	taken      time.Time
}

// sealLasts is for how long a seal is trusted. The sizes of legacy tables stay
// the same when a rule is replaced by one of the same size.
const sealLasts = 10 * time.Minute

// tableInfo is the beginning of what the kernel says of a legacy table, and the
// whole (struct ipt_getinfo).
type tableInfo struct {
	Name                  [32]byte
	ValidHooks            uint32
	HookEntry, Underflow  [5]uint32
	NumEntries, SizeBytes uint32
}

func (s seal) intact(before seal) bool {
	return !before.taken.IsZero() && s.taken.Sub(before.taken) < sealLasts && s.generation == before.generation && s.sizes == before.sizes
}

func (p *program) seal() (seal, error) {
	s := seal{taken: time.Now()}
	var err error
	if p.variant == NFT {
		s.generation, err = nft.Generation()
		return s, err
	}
	for i, table := range []string{mangle, filter, nat} {
		if s.sizes[i], err = legacyTable(p.kind, table); err != nil {
			return s, fmt.Errorf("read the size of table %s: %w", table, err)
		}
	}
	return s, nil
}

// getInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const getInfo = 64

// legacyTable asks the kernel for the size of a table; one that does not exist
// is empty.
func legacyTable(kind corev1.IPFamily, name string) (tableInfo, error) {
	var info tableInfo
	copy(info.Name[:], name)
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if kind == corev1.IPv6Protocol {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	socket, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return info, os.NewSyscallError("socket", err)
	}
	defer unix.Close(socket)
	size := uint32(unsafe.Sizeof(info))
	_, _, failed := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), uintptr(level), getInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errors.Is(failed, unix.ENOENT) {
		return tableInfo{}, nil
	}
	if failed != 0 {
		return info, os.NewSyscallError("getsockopt", failed)
	}
	if !bytes.HasPrefix(info.Name[:], []byte(name)) {
		return info, errors.New("the kernel answered for another table")
	}
	return info, nil
}
