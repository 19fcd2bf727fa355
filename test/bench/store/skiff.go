package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// skiffCluster is three members of raftstore as three processes on loopback.
type skiffCluster struct {
	dir              string
	addresses, peers []string
	processes        []*exec.Cmd
	founded          bool
}

func newSkiffCluster(dir string) (*skiffCluster, error) {
	c := &skiffCluster{dir: dir, processes: make([]*exec.Cmd, members)}
	for range members {
		for _, list := range []*[]string{&c.addresses, &c.peers} {
			address, err := freeAddress()
			if err != nil {
				return nil, err
			}
			*list = append(*list, address)
		}
	}
	return c, nil
}

func (c *skiffCluster) name() string { return "skiff" }

func (c *skiffCluster) id(i int) string { return fmt.Sprintf("m%d", i) }

// start starts a member; the first time, each but the first is added by the first.
func (c *skiffCluster) start(i int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	folder := filepath.Join(c.dir, "skiff-"+c.id(i))
	authority := filepath.Join(folder, "pki")
	if err := c.shareAuthority(authority); err != nil {
		return err
	}
	log, err := os.OpenFile(folder+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	process := exec.Command(self, "member", "--dir", folder, "--pki", authority, "--id", c.id(i), "--peer", c.peers[i],
		"--address", c.addresses[i], fmt.Sprintf("--join=%t", i > 0))
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return fmt.Errorf("start member: %w", err)
	}
	c.processes[i] = process
	if c.founded {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if i > 0 {
		if err := c.call(ctx, 0, http.MethodPost, "/add?"+url.Values{"id": {c.id(i)}, "address": {c.peers[i]}}.Encode(), nil, nil); err != nil {
			return err
		}
	}
	if err := until(ctx, func(ctx context.Context) error { return c.voters(ctx, i+1) }); err != nil {
		return err
	}
	c.founded = i == members-1
	return nil
}

// shareAuthority gives every member the same authority, as joining does.
func (c *skiffCluster) shareAuthority(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	first := filepath.Join(c.dir, "skiff-"+c.id(0), "pki")
	for _, name := range []string{"store-ca.crt", "store-ca.key"} {
		data, err := os.ReadFile(filepath.Join(first, name))
		if folder == first || err != nil {
			continue // the first member makes it
		}
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *skiffCluster) voters(ctx context.Context, want int) error {
	var voters int
	if err := c.call(ctx, 0, http.MethodGet, "/voters", nil, &voters); err != nil {
		return err
	}
	if voters < want {
		return fmt.Errorf("%d of %d voters", voters, want)
	}
	return nil
}

func (c *skiffCluster) process(i int) *exec.Cmd { return c.processes[i] }

func (c *skiffCluster) run(ctx context.Context, i int, w Workload) (o Outcome, err error) {
	return o, c.call(ctx, i, http.MethodPost, "/run", w, &o)
}

func (c *skiffCluster) leader(ctx context.Context) (int, error) {
	for i := range members {
		var leads bool
		one, cancel := context.WithTimeout(ctx, time.Second)
		err := c.call(one, i, http.MethodGet, "/leader", nil, &leads)
		cancel()
		if err == nil && leads {
			return i, nil
		}
	}
	return 0, errors.New("no leader")
}

func (c *skiffCluster) healthy(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.call(ctx, i, http.MethodGet, "/healthy", nil, nil)
}

func (c *skiffCluster) transfer(ctx context.Context) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	return c.call(ctx, leader, http.MethodPost, "/transfer", nil, nil)
}

// call gives a member's process a command.
func (c *skiffCluster) call(ctx context.Context, i int, method, path string, body, result any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.addresses[i]+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("member %d: %s: %s", i, path, data)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(data, result)
}
