package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/peer"
)

// openStore opens this machine's member of the store, reachable for the others.
func openStore(ctx context.Context, c *config.Control, address netip.Addr, logger *slog.Logger) (*raftstore.Store, error) {
	options := raftstore.Options{
		Dir: filepath.Join(c.DataDir, "store"), MemberID: c.MemberID, Logger: logger.With("component", "store"),
		OnFatal: func(err error) {
			logger.Error("the store cannot go on; the process ends so that nothing is acknowledged that is not kept", "error", err)
			os.Exit(1)
		},
	}
	if c.PeerPort == 0 {
		return raftstore.Open(ctx, options)
	}
	options.Join, options.Address = c.Join, c.PeerAddress
	if options.Address == "" {
		options.Address = net.JoinHostPort(address.String(), strconv.Itoa(c.PeerPort))
	}
	network, err := listenToPeers(c, options, address)
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

// listenToPeers makes the member's certificate where it is missing and opens its port.
func listenToPeers(c *config.Control, options raftstore.Options, address netip.Addr) (*peer.Network, error) {
	id, err := raftstore.EnsureMember(options.Dir, options.MemberID, options.Join)
	if err != nil {
		return nil, err
	}
	if err := pki.EnsureStoreMember(c.PKIDir, id, []string{c.NodeName}, []net.IP{address.AsSlice()}); err != nil {
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
