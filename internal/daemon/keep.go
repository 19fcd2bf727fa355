package daemon

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// inherited are the files that systemd kept for us, by their names. They are
// taken out of the environment at once, so that no program we start takes them
// for its own.
var inherited = sync.OnceValue(func() map[string]*os.File {
	files := map[string]*os.File{}
	for _, file := range activation.Files(true) {
		if _, twice := files[file.Name()]; twice {
			file.Close()
			continue
		}
		files[file.Name()] = file
	}
	return files
})

// keeping guards the map of inherited.
var keeping sync.Mutex

// Keep leaves a file with systemd under a name, without a colon, until the
// service stops: the next process of the service gets it by Kept. The caller may
// close its own. Without systemd, or when its unit says FileDescriptorStoreMax=0,
// nothing happens, and that is no error.
func Keep(name string, file *os.File) error {
	address := supervisor.Load()
	if address == nil {
		return nil
	}
	// Not net.DialUnix: the net package sends no files by a datagram socket that is connected.
	connection, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("leave %s with systemd: %w", name, err)
	}
	defer unix.Close(connection)
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("leave %s with systemd: %w", name, err)
	}
	var sent error
	// Without FDPOLL=0 it would be dropped when an error waits in it, such as a
	// client's port that nobody listens at any more.
	err = raw.Control(func(fd uintptr) {
		sent = unix.Sendmsg(connection, []byte("FDSTORE=1\nFDPOLL=0\nFDNAME="+name), unix.UnixRights(int(fd)), &unix.SockaddrUnix{Name: address.Name}, 0)
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("leave %s with systemd: %w", name, err)
	}
	return nil
}

// Kept returns a file that a former process left by Keep, once, or nil. The
// caller closes it; it stays with systemd.
func Kept(name string) *os.File {
	keeping.Lock()
	defer keeping.Unlock()
	file := inherited()[name]
	delete(inherited(), name)
	return file
}

// Drop has systemd forget the files under a name.
func Drop(name string) { notify("FDSTOREREMOVE=1\nFDNAME=" + name) }
