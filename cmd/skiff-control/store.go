package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/peer"
)

// member opens this machine's member of the store.
type member struct {
	configuration *config.Control
	// address is what other machines reach this one by.
	address netip.Addr
	logger  *slog.Logger
	// removed is called when the cluster removes the member while it runs.
	removed func()
}

// errRemoved is why a daemon ends whose member was removed.
var errRemoved = daemon.Final(fmt.Errorf("%w: it serves nothing any more, although pods run on here. "+
	"To come back: \"skiff reset --yes\", then \"skiff join\" on this machine", raftstore.ErrRemoved))

// open opens the member, reachable for the others. A damaged one is replaced by
// a new one, if the configuration and the other members let it.
func (m *member) open(ctx context.Context) (*raftstore.Store, error) {
	store, err := m.try(ctx)
	var damage *raftstore.DamageError
	if errors.As(err, &damage) && m.configuration.PeerPort != 0 && m.configuration.ReplaceDamagedStore {
		m.logger.Error("this machine's member of the store is damaged; a new one shall take its place", "error", err)
		if replaceErr := m.replace(ctx); replaceErr != nil {
			err = errors.Join(err, replaceErr)
		} else {
			store, err = m.try(ctx)
		}
	}
	if errors.Is(err, raftstore.ErrRemoved) {
		return nil, errRemoved
	}
	return store, err
}

// options are the store's, less the network.
func (m *member) options() raftstore.Options {
	c := m.configuration
	options := raftstore.Options{
		Dir: filepath.Join(c.DataDir, "store"), MemberID: c.MemberID, Logger: m.logger.With("component", "store"),
		OnFatal: func(err error) {
			m.logger.Error("the store cannot go on; the process ends so that nothing is acknowledged that is not kept", "error", err)
			os.Exit(1)
		},
		OnRemoved: m.removed,
	}
	if c.PeerPort == 0 {
		return options
	}
	options.Join, options.Address = c.Join, c.PeerAddress
	if options.Address == "" {
		options.Address = net.JoinHostPort(m.address.String(), strconv.Itoa(c.PeerPort))
	}
	return options
}

// try opens the member as it is.
func (m *member) try(ctx context.Context) (*raftstore.Store, error) {
	options := m.options()
	if m.configuration.PeerPort == 0 {
		return raftstore.Open(ctx, options)
	}
	id, err := raftstore.EnsureMember(options.Dir, options.MemberID, options.Join)
	if err != nil {
		return nil, err
	}
	network, err := m.listen(options, id)
	if err != nil {
		return nil, err
	}
	options.Network = network
	store, err := raftstore.Open(ctx, options)
	if err != nil {
		// The store closes its network once it has started it; twice does no harm.
		_ = network.Close()
		return nil, err
	}
	return store, nil
}

// replace puts a new member in the place of a damaged one, in the name of that.
// It may end anywhere: the next start goes on.
func (m *member) replace(ctx context.Context) error {
	options := m.options()
	id, err := raftstore.MemberID(options.Dir)
	if err != nil {
		return fmt.Errorf("find out whom to replace: %w", err)
	}
	network, err := m.listen(options, id)
	if err != nil {
		return err
	}
	options.Network = network
	done, err := raftstore.Replace(ctx, options)
	if err != nil {
		_ = network.Close() // as above
		return err
	}
	m.logger.Warn("a new member of the store takes the damaged one's place and gets its state from the others; the damaged files may be removed when they are of no interest",
		"former", done.FormerID, "member", done.MemberID, "files", done.Aside)
	return nil
}

// listen makes the certificate of the member with this id where it is missing
// and opens its port.
func (m *member) listen(options raftstore.Options, id string) (*peer.Network, error) {
	c := m.configuration
	if err := pki.EnsureStoreMember(c.PKIDir, id, []string{c.NodeName}, []net.IP{m.address.AsSlice()}); err != nil {
		return nil, err
	}
	identity, err := pki.LoadStoreMember(c.PKIDir)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(c.BindAddress, strconv.Itoa(c.PeerPort)))
	if err != nil {
		return nil, fmt.Errorf("listen for the store's other members: %w; another program has the port: stop it, or set peerPort", err)
	}
	return peer.Listen(peer.Config{Listener: listener, Certificate: identity.Certificate, Roots: identity.Roots, Logger: options.Logger})
}
