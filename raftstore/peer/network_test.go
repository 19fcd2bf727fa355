package peer_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/peer"
	"github.com/skiff-run/skiff/raftstore/storetest"
)

// member is one end of the tests.
type member struct {
	*peer.Network
	transport raftstore.Transport
	id, addr  string
	cert      atomic.Pointer[tls.Certificate]
	roots     atomic.Pointer[x509.CertPool]
	refuses   sync.Map
}

func start(t *testing.T, a *storetest.Authority, id string, cert *tls.Certificate, handler raftstore.Handler) *member {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &member{id: id, addr: listener.Addr().String()}
	m.cert.Store(cert)
	m.roots.Store(a.Pool())
	m.Network, err = peer.Listen(peer.Config{
		Listener: listener, Logger: slog.New(slog.DiscardHandler),
		Certificate: func() (*tls.Certificate, error) { return m.cert.Load(), nil },
		Roots:       func() *x509.CertPool { return m.roots.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.transport, err = m.Start(raftstore.Local{
		ID: id, Address: m.addr, Log: hclog.NewNullLogger(),
		Admits: func(id string) bool { _, refused := m.refuses.Load(id); return !refused },
	}, handler)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func echo(_ context.Context, from string, request []byte) []byte {
	return fmt.Appendf(nil, "%s:%s", from, request)
}

func TestCallsAreAnswered(t *testing.T) {
	t.Parallel()
	ca := storetest.NewAuthority(t)
	a := start(t, ca, "a", ca.Issue(t, peer.Identity("a")), echo)
	b := start(t, ca, "b", ca.Issue(t, peer.Identity("b")), echo)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for j := range 20 {
				request := strings.Repeat("x", i*1000) + fmt.Sprint(j)
				answer, err := a.Call(t.Context(), "b", b.addr, []byte(request))
				if err != nil || string(answer) != "a:"+request {
					t.Errorf("call of %d bytes: %d bytes, %v", len(request), len(answer), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWhoIsRefused(t *testing.T) {
	t.Parallel()
	ca, stranger := storetest.NewAuthority(t), storetest.NewAuthority(t)
	b := start(t, ca, "b", ca.Issue(t, peer.Identity("b")), echo)
	b.refuses.Store("removed", true)
	cases := []struct {
		name, id string
		cert     *tls.Certificate
		roots    *storetest.Authority
		target   string
	}{
		{"a certificate of another authority", "a", stranger.Issue(t, peer.Identity("a")), ca, "b"},
		{"a member which is not admitted", "removed", ca.Issue(t, peer.Identity("removed")), ca, "b"},
		{"a certificate for servers only", "a", ca.Issue(t, peer.Identity("a"), x509.ExtKeyUsageServerAuth), ca, "b"},
		{"a server whose authority the caller does not trust", "a", ca.Issue(t, peer.Identity("a")), stranger, "b"},
		{"a server which is another member", "a", ca.Issue(t, peer.Identity("a")), ca, "c"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := start(t, ca, c.id, c.cert, echo)
			a.roots.Store(c.roots.Pool())
			// A stranger's call is for the store to answer.
			if answer, err := a.Call(t.Context(), c.target, b.addr, []byte("x")); (err == nil) != (c.id == "removed") {
				t.Errorf("answered %q, %v", answer, err)
			}
			request := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
			err := a.transport.AppendEntries(raft.ServerID(c.target), raft.ServerAddress(b.addr), request, &raft.AppendEntriesResponse{})
			if err == nil {
				t.Error("raft's message was delivered")
			}
		})
	}
}

func TestStartRefusesACertificateOthersWouldRefuse(t *testing.T) {
	t.Parallel()
	ca := storetest.NewAuthority(t)
	for name, uri := range map[string]string{"of another member": peer.Identity("z"), "without an identity": "https://a"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cert := ca.Issue(t, uri)
		n, err := peer.Listen(peer.Config{Listener: listener, Certificate: func() (*tls.Certificate, error) { return cert, nil }, Roots: ca.Pool})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Start(raftstore.Local{ID: "a", Address: "x"}, echo); err == nil {
			t.Errorf("started with a certificate %s", name)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConnectionsEndWithMembership(t *testing.T) {
	t.Parallel()
	ca := storetest.NewAuthority(t)
	a := start(t, ca, "a", ca.Issue(t, peer.Identity("a")), echo)
	b := start(t, ca, "b", ca.Issue(t, peer.Identity("b")), echo)
	go func() {
		for {
			select {
			case rpc := <-b.transport.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-t.Context().Done():
				return
			}
		}
	}()
	say := func() error {
		request := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
		return a.transport.AppendEntries("b", raft.ServerAddress(b.addr), request, &raft.AppendEntriesResponse{})
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	b.refuses.Store("a", true)
	if err := say(); err == nil {
		t.Error("an open connection of a removed member still serves")
	}
}

func TestRenewedCertificatesAreUsedAtOnce(t *testing.T) {
	t.Parallel()
	old, renewed := storetest.NewAuthority(t), storetest.NewAuthority(t)
	a := start(t, old, "a", old.Issue(t, peer.Identity("a")), echo)
	b := start(t, old, "b", old.Issue(t, peer.Identity("b")), echo)
	both := old.Pool()
	both.AddCert(renewed.Certificate)
	b.roots.Store(both)
	b.cert.Store(renewed.Issue(t, peer.Identity("b")))
	if _, err := a.Call(t.Context(), "b", b.addr, nil); !errors.Is(err, raftstore.ErrUnreachable) {
		t.Fatalf("a member with an unknown authority: %v", err)
	}
	a.roots.Store(both)
	if _, err := a.Call(t.Context(), "b", b.addr, nil); err != nil {
		t.Errorf("after the new authority is known: %v", err)
	}
}

func TestRaftMessagesArrive(t *testing.T) {
	t.Parallel()
	ca := storetest.NewAuthority(t)
	a := start(t, ca, "a", ca.Issue(t, peer.Identity("a")), echo)
	b := start(t, ca, "b", ca.Issue(t, peer.Identity("b")), echo)
	go func() {
		for rpc := range b.transport.Consumer() {
			rpc.Respond(&raft.RequestPreVoteResponse{Term: rpc.Command.(*raft.RequestPreVoteRequest).Term, Granted: true}, nil)
			return
		}
	}()
	var answer raft.RequestPreVoteResponse
	if err := a.transport.RequestPreVote("b", raft.ServerAddress(b.addr), &raft.RequestPreVoteRequest{Term: 7}, &answer); err != nil || answer.Term != 7 || !answer.Granted {
		t.Errorf("%+v, %v", answer, err)
	}
	if got := a.transport.LocalAddr(); string(got) != a.addr {
		t.Errorf("local address %s", got)
	}
}

func TestCallsFailWithTheirReason(t *testing.T) {
	t.Parallel()
	ca := storetest.NewAuthority(t)
	entered, release := make(chan struct{}, 2), make(chan struct{})
	slow := func(ctx context.Context, _ string, _ []byte) []byte {
		entered <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	a := start(t, ca, "a", ca.Issue(t, peer.Identity("a")), echo)
	b := start(t, ca, "b", ca.Issue(t, peer.Identity("b")), slow)

	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := a.Call(ctx, "b", b.addr, nil); !errors.Is(err, context.Canceled) || errors.Is(err, raftstore.ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
	close(release)

	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	if _, err := a.Call(t.Context(), "b", dead.Addr().String(), nil); !errors.Is(err, raftstore.ErrUnreachable) {
		t.Errorf("nobody listens: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := a.Call(t.Context(), "b", b.addr, nil); !errors.Is(err, raftstore.ErrUnreachable) {
		t.Errorf("after close: %v", err)
	}
}

// TestAnswersLostWithTheConnectionAreNotUnreachable: the handler ran, so the
// error must not promise that it did not.
func TestAnswersLostWithTheConnectionAreNotUnreachable(t *testing.T) {
	t.Parallel()
	ca := storetest.NewAuthority(t)
	entered := make(chan struct{})
	a := start(t, ca, "a", ca.Issue(t, peer.Identity("a")), echo)
	b := start(t, ca, "b", ca.Issue(t, peer.Identity("b")), func(ctx context.Context, _ string, _ []byte) []byte {
		close(entered)
		<-ctx.Done()
		return nil
	})
	go func() { <-entered; _ = b.Close() }()
	if _, err := a.Call(t.Context(), "b", b.addr, nil); err == nil || errors.Is(err, raftstore.ErrUnreachable) {
		t.Errorf("%v", err)
	}
}
