package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdClient is a target by etcd's own client.
type etcdClient struct{ client *clientv3.Client }

func (c etcdClient) Put(ctx context.Context, key string, value []byte) error {
	_, err := c.client.Put(ctx, key, string(value))
	return err
}

func (c etcdClient) Get(ctx context.Context, key string) error {
	_, err := c.client.Get(ctx, key)
	return err
}

func (c etcdClient) Page(ctx context.Context, prefix, start string, limit int) (int, error) {
	answer, err := c.client.Get(ctx, start, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return 0, err
	}
	return len(answer.Kvs), nil
}

func (c etcdClient) Watch(ctx context.Context, prefix string, seen func()) error {
	stream := c.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	first, ok := <-stream
	if !ok || !first.Created {
		return errors.Join(errors.New("the watch was not made"), first.Err())
	}
	go func() {
		for answer := range stream {
			for range answer.Events {
				seen()
			}
		}
	}()
	return nil
}

// etcdCluster is three members of etcd as three processes on loopback.
type etcdCluster struct {
	binary, dir string
	clients     []string // client URLs
	peers       []string
	processes   []*exec.Cmd
}

func newEtcdCluster(binary, dir string, members int) (*etcdCluster, error) {
	c := &etcdCluster{binary: binary, dir: dir, processes: make([]*exec.Cmd, members)}
	for range 2 * members {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		if len(c.clients) < members {
			c.clients = append(c.clients, "http://"+address)
		} else {
			c.peers = append(c.peers, "http://"+address)
		}
	}
	return c, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func (c *etcdCluster) name() string { return "etcd" }

func (c *etcdCluster) start(i int) error {
	var initial []string
	for n, peer := range c.peers {
		initial = append(initial, fmt.Sprintf("m%d=%s", n, peer))
	}
	log, err := os.OpenFile(filepath.Join(c.dir, fmt.Sprintf("etcd-%d.log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	process := exec.Command(c.binary, "--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(c.dir, fmt.Sprintf("etcd-%d", i)),
		"--listen-client-urls", c.clients[i], "--advertise-client-urls", c.clients[i],
		"--listen-peer-urls", c.peers[i], "--initial-advertise-peer-urls", c.peers[i],
		"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-token", "bench", "--log-level", "error",
		"--quota-backend-bytes", fmt.Sprint(8<<30))
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	c.processes[i] = process
	return nil
}

func (c *etcdCluster) process(i int) *exec.Cmd { return c.processes[i] }

// client connects to one member only: a client of a surviving member is what an API server is.
func (c *etcdCluster) client(i int) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{c.clients[i]}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

func (c *etcdCluster) run(ctx context.Context, i int, w Workload) (Outcome, error) {
	client, err := c.client(i)
	if err != nil {
		return Outcome{}, err
	}
	defer client.Close()
	return w.run(ctx, etcdClient{client}), nil
}

func (c *etcdCluster) leader(ctx context.Context) (int, error) {
	for i := range c.clients {
		client, err := c.client(i)
		if err != nil {
			return 0, err
		}
		one, cancel := context.WithTimeout(ctx, time.Second)
		status, err := client.Status(one, c.clients[i])
		cancel()
		client.Close()
		if err == nil && status.Leader == status.Header.MemberId {
			return i, nil
		}
	}
	return 0, errors.New("no leader")
}

func (c *etcdCluster) healthy(ctx context.Context, i int) error {
	client, err := c.client(i)
	if err != nil {
		return err
	}
	defer client.Close()
	one, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return etcdClient{client}.Get(one, "health")
}

func (c *etcdCluster) transfer(ctx context.Context) error {
	from, err := c.leader(ctx)
	if err != nil {
		return err
	}
	client, err := c.client(from)
	if err != nil {
		return err
	}
	defer client.Close()
	members, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	to := fmt.Sprintf("m%d", (from+1)%len(c.clients))
	for _, m := range members.Members {
		if m.Name == to {
			_, err := client.MoveLeader(ctx, m.ID)
			return err
		}
	}
	return fmt.Errorf("no member %s", to)
}
