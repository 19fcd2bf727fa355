package policy

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"os"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-run/skiff/internal/testenv"
)

// association is the packet that opens an SCTP association (RFC 9260, 3.3.2).
func association(from, to uint16) []byte {
	p := make([]byte, 12+20)
	binary.BigEndian.PutUint16(p, from)
	binary.BigEndian.PutUint16(p[2:], to)
	p[12] = 1 // INIT
	binary.BigEndian.PutUint16(p[14:], 20)
	binary.BigEndian.PutUint32(p[16:], 4711)
	binary.BigEndian.PutUint32(p[20:], 65536)
	binary.BigEndian.PutUint16(p[24:], 1)
	binary.BigEndian.PutUint16(p[26:], 1)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// Programs cannot open associations on every kernel, but packets of them are
// judged on all that track SCTP.
func TestSCTPPorts(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	if _, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established"); err != nil {
		t.Skip("this kernel does not track SCTP")
	}
	w := newWorld(t, 0)
	w.enforce(input(policyFor("web", in(port("SCTP", intstr.FromInt32(80), 0), app("db")), in([]networkingv1.NetworkPolicyPort{}, team("nobody")))))
	var arrived net.PacketConn
	w.hosts["web"].Must(func() (err error) {
		arrived, err = net.ListenPacket("ip4:132", w.address("web").String())
		return err
	})
	defer arrived.Close()
	source := uint16(1000)
	for _, tc := range []struct {
		from string
		port uint16
		open bool
	}{{"db", 80, true}, {"db", 81, false}, {"far", 80, false}, {"db", 80, true}} {
		source++
		w.hosts[tc.from].Must(func() error {
			connection, err := net.Dial("ip4:132", w.address("web").String())
			if err != nil {
				return err
			}
			defer connection.Close()
			_, err = connection.Write(association(source, tc.port))
			return err
		})
		limit := silenceLimit
		if tc.open {
			limit = answerLimit
		}
		if err := arrived.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 1500)
		_, _, err := arrived.ReadFrom(packet)
		if open := err == nil; open != tc.open || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("from %s to port %d: arrived %v, want %v (%v)", tc.from, tc.port, open, tc.open, err)
		}
	}
}
