package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrNoAddress says that every address of the pod range is leased.
var ErrNoAddress = errors.New("no free address")

// leases remembers which pod holds which address: one file per address, named
// after it, that contains the pod's ID. A lease is made by a rename, so it is there
// or not. It is not synced to the disk: kill -9 of the process cannot lose it, and
// after a crash of the machine no pod exists that could hold an address.
type leases struct {
	dir string

	mu    sync.Mutex // guards what follows
	owner map[netip.Addr]string
	last  map[netip.Prefix]netip.Addr // the search goes on behind it, so that an address rests before it is used again
}

func openLeases(dir string) (*leases, error) {
	l := &leases{dir: filepath.Join(dir, "leases"), owner: map[netip.Addr]string{}, last: map[netip.Prefix]netip.Addr{}}
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, fmt.Errorf("address leases: %w", err)
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("address leases: %w", err)
	}
	var newest time.Time
	var newestAddr netip.Addr
	for _, e := range entries {
		file := filepath.Join(l.dir, e.Name())
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			if strings.HasPrefix(e.Name(), ".") {
				_ = os.Remove(file) // a lease that was being written
				continue
			}
			return nil, fmt.Errorf("address lease %s: not an address: remove the file", file)
		}
		id, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("address lease: %w", err)
		}
		l.owner[addr] = string(id)
		if info, err := e.Info(); err == nil && info.ModTime().After(newest) {
			newest, newestAddr = info.ModTime(), addr
		}
	}
	if newestAddr.IsValid() {
		l.last[netip.Prefix{}] = newestAddr
	}
	return l, nil
}

// acquire leases an address of the range to id, or returns the one it has there.
// The range's own address, the gateway behind it and, for IPv4, the last one stay free.
func (l *leases) acquire(id string, gateway netip.Prefix) (netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for addr, owner := range l.owner {
		if owner == id && gateway.Contains(addr) {
			return addr, nil
		}
	}
	first := gateway.Addr().Next()
	start := first
	for _, key := range []netip.Prefix{gateway, {}} {
		if last, ok := l.last[key]; ok && gateway.Contains(last) {
			start = last.Next()
			break
		}
	}
	addr := start
	// One round: from start to the end, then from the first to start.
	for wrapped := false; ; addr = addr.Next() {
		if !gateway.Contains(addr) || isBroadcast(addr, gateway) {
			if wrapped {
				break
			}
			wrapped, addr = true, first
			if !gateway.Contains(addr) || isBroadcast(addr, gateway) {
				break
			}
		}
		if _, taken := l.owner[addr]; !taken {
			if err := l.write(addr, id); err != nil {
				return netip.Addr{}, err
			}
			l.owner[addr], l.last[gateway] = id, addr
			return addr, nil
		}
		if wrapped && addr == start {
			break
		}
	}
	return netip.Addr{}, fmt.Errorf("%w in %s", ErrNoAddress, gateway.Masked())
}

func isBroadcast(a netip.Addr, p netip.Prefix) bool {
	return a.Is4() && !p.Contains(a.Next())
}

func (l *leases) write(addr netip.Addr, id string) error {
	tmp := filepath.Join(l.dir, "."+addr.String())
	if err := os.WriteFile(tmp, []byte(id), 0o644); err != nil {
		return fmt.Errorf("lease of address %s: %w", addr, err)
	}
	if err := os.Rename(tmp, filepath.Join(l.dir, addr.String())); err != nil {
		return fmt.Errorf("lease of address %s: %w", addr, err)
	}
	return nil
}

// release gives up every address of id.
func (l *leases) release(id string) error {
	return l.releaseIf(func(owner string) bool { return owner == id })
}

// reclaim gives up the addresses of pods that are not alive and returns how many there were.
func (l *leases) reclaim(alive map[string]bool) (int, error) {
	count := 0
	err := l.releaseIf(func(owner string) bool {
		if alive[owner] {
			return false
		}
		count++
		return true
	})
	return count, err
}

func (l *leases) releaseIf(dead func(owner string) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for addr, owner := range l.owner {
		if !dead(owner) {
			continue
		}
		if err := os.Remove(filepath.Join(l.dir, addr.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("release address %s: %w", addr, err))
			continue
		}
		delete(l.owner, addr)
	}
	return errors.Join(errs...)
}
