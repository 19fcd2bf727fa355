package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeepHandsAFileOver plays systemd: the file that arrives is the one that was
// kept.
func TestKeepHandsAFileOver(t *testing.T) {
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	systemd, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	before := supervisor.Swap(address)
	defer supervisor.Store(before)
	file, err := os.Create(filepath.Join(t.TempDir(), "kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Keep("socket", file); err != nil {
		t.Fatal(err)
	}

	text, rights := make([]byte, 200), make([]byte, 200)
	n, oobn, _, _, err := systemd.ReadMsgUnix(text, rights)
	if err != nil {
		t.Fatal(err)
	}
	if said := string(text[:n]); !strings.Contains(said, "FDSTORE=1\n") || !strings.HasSuffix(said, "FDNAME=socket") {
		t.Errorf("systemd is told %q", said)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages: %v", len(messages), err)
	}
	files, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v: %v", files, err)
	}
	arrived := os.NewFile(uintptr(files[0]), "arrived")
	defer arrived.Close()
	one, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	other, err := arrived.Stat()
	if err != nil || !os.SameFile(one, other) {
		t.Errorf("another file arrives: %v", err)
	}
	if Kept("socket") != nil {
		t.Error("a file is there that no former process left")
	}
}
