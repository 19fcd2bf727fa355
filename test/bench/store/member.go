package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/peer"
)

// storeClient is a target by the store's own methods: in Skiff the client of
// a member is the API server in the same process.
type storeClient struct{ store *raftstore.Store }

func (c storeClient) Put(ctx context.Context, key string, value []byte) error {
	_, err := c.store.Put(ctx, raftstore.PutRequest{Key: key, Value: value, ExpectModRevision: raftstore.AnyRevision})
	return err
}

func (c storeClient) Get(ctx context.Context, key string) error {
	if _, err := c.store.ReadIndex(ctx); err != nil {
		return err
	}
	_, _, err := c.store.Get(key, 0)
	return err
}

func (c storeClient) Page(ctx context.Context, prefix, start string, limit int) (int, error) {
	if _, err := c.store.ReadIndex(ctx); err != nil {
		return 0, err
	}
	page, err := c.store.Range(prefix, start, limit, 0)
	return len(page.KVs), err
}

func (c storeClient) Watch(ctx context.Context, prefix string, seen func()) error {
	revision, err := c.store.ReadIndex(ctx)
	if err != nil {
		return err
	}
	watcher, err := c.store.Watch(prefix, revision)
	if err != nil {
		return err
	}
	go func() {
		defer watcher.Close()
		for {
			events, _, err := watcher.Next(ctx)
			if err != nil {
				return
			}
			for range events {
				seen()
			}
		}
	}()
	return nil
}

// serveMember is the life of one member's process. It is told what to do over
// plain HTTP on loopback.
func serveMember(ctx context.Context, arguments []string) (err error) {
	flags := pflag.NewFlagSet("member", pflag.ExitOnError)
	dir := flags.String("dir", "", "folder of the member")
	authority := flags.String("pki", "", "folder of the members' authority")
	id := flags.String("id", "", "member id")
	peerAddress := flags.String("peer", "", "address other members reach this one by")
	address := flags.String("address", "", "address of the commands")
	join := flags.Bool("join", false, "wait to be added instead of founding")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if err := pki.EnsureStoreMember(*authority, *id, []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		return err
	}
	identity, err := pki.LoadStoreMember(*authority)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *peerAddress)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	network, err := peer.Listen(peer.Config{Listener: listener, Certificate: identity.Certificate, Roots: identity.Roots, Logger: logger})
	if err != nil {
		return err
	}
	store, err := raftstore.Open(ctx, raftstore.Options{
		Dir: filepath.Join(*dir, "store"), MemberID: *id, Logger: logger, Network: network, Address: *peerAddress, Join: *join,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	server := &http.Server{Addr: *address, Handler: commands(store)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func commands(store *raftstore.Store) http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern string, do func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			result, err := do(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(result) // the caller has gone, or reads it
		})
	}
	answer("POST /run", func(r *http.Request) (any, error) {
		var w Workload
		if err := json.NewDecoder(r.Body).Decode(&w); err != nil {
			return nil, err
		}
		return w.run(r.Context(), storeClient{store}), nil
	})
	answer("POST /add", func(r *http.Request) (any, error) {
		id := r.FormValue("id")
		if err := store.AddMember(r.Context(), id, r.FormValue("address")); err != nil {
			return nil, err
		}
		return id, nil
	})
	answer("POST /transfer", func(r *http.Request) (any, error) { return "", store.TransferLeadership(r.Context(), "") })
	answer("GET /status", func(*http.Request) (any, error) { return store.Status(), nil })
	answer("GET /leader", func(*http.Request) (any, error) { return store.IsLeader(), nil })
	answer("GET /voters", func(*http.Request) (any, error) { return store.Status().Voters, nil })
	answer("GET /healthy", func(r *http.Request) (any, error) {
		if err := store.Health(r.Context()); err != nil {
			return nil, fmt.Errorf("not healthy: %w", err)
		}
		return true, nil
	})
	return mux
}
