package pki

import (
	"fmt"
	"os"
	"syscall"
)

// locked calls change while nobody else changes certificates in dir: a person's
// command and the daemon may both want to, and a key of one with a certificate
// of the other would be no pair. The kernel frees the lock when a process dies.
func locked(dir string, change func() error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder of certificates: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("lock folder of certificates: %w", err)
	}
	defer folder.Close()
	for {
		err = syscall.Flock(int(folder.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("lock folder of certificates %s: %w", dir, err)
	}
	return change()
}
