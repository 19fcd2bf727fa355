package resilience

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/test/host"
)

// dataFolder is where the daemon keeps the store on its host.
const dataFolder = "/var/lib/skiff/control"

// smallDisk is the size in bytes of a disk that can be filled: a few of the
// log's segments.
const smallDisk = 256 << 20

// administration are faults that are an operator's doing.
var administration = []Fault{
	{"hand leadership over", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		return eventually(ctx, writeAgain, "hand leadership over", func(ctx context.Context) error {
			_, err := c.server(c.one(random)).request(ctx, http.MethodPost, operator.TransferPath, nil, operator.TransferRequest{}, &object{})
			return err
		})
	}},
	{"save a snapshot while one is cut off", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.one(random)
		if err := c.Network.Cut(host.Between([]*host.Host{m.Host}, c.others(m))...); err != nil {
			return err
		}
		err := eventually(ctx, writeAgain, "save a snapshot", func(ctx context.Context) error {
			return c.otherServer(m, random).snapshot(ctx)
		})
		return errors.Join(err, c.Network.Heal())
	}},
	{"replace one by a new, empty one", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		return c.replace(ctx, c.one(random), random)
	}},
	{"fill a disk and kill -9", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.small()
		if m == nil {
			return errors.New("no member has a small disk")
		}
		// It is meant to end with an error.
		_, _ = m.Run(ctx, "sh", "-c", "cat /dev/zero >"+dataFolder+"/fill 2>/dev/null; true")
		m.expectEnds(true)
		defer m.expectEnds(false)
		err := m.Kill(0)
		sleep(ctx, time.Second+upTo(random, 2*time.Second))
		_, freed := m.Run(ctx, "rm", "-f", dataFolder+"/fill")
		return errors.Join(err, freed, c.ready(ctx, m))
	}},
}

// otherServer is an API server on another machine than the member's.
func (c *Cluster) otherServer(m *Member, random *rand.Rand) *Server {
	for {
		if other := c.one(random); other != m {
			return c.server(other)
		}
	}
}

// small is the member on a small disk, nil if there is none.
func (c *Cluster) small() *Member {
	for _, m := range c.Members {
		if m.Small {
			return m
		}
	}
	return nil
}

// snapshot saves a snapshot and verifies it.
func (s *Server) snapshot(ctx context.Context) error {
	response, _, err := s.send(ctx, http.MethodGet, operator.SnapshotPath, nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", s.Name, response.Status)
	}
	info, err := raftstore.InspectSnapshot(response.Body)
	if err != nil {
		return err
	}
	if info.Keys == 0 {
		return errors.New("the snapshot is empty")
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// replace does what an operator does after a machine was lost with its disk:
// remove its member, and add a new one.
func (c *Cluster) replace(ctx context.Context, m *Member, random *rand.Rand) error {
	m.Stop()
	through := c.otherServer(m, random)
	err := eventually(ctx, 2*writeAgain, "remove "+m.ID, func(ctx context.Context) error {
		_, err := through.request(ctx, http.MethodDelete, operator.MembersPath+"/"+url.PathEscape(m.ID), nil, nil, &object{})
		if hasCode(err, http.StatusNotFound) {
			return nil // by an attempt that was not answered
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := errors.Join(m.PowerOff(ctx), os.RemoveAll(m.Path(dataFolder))); err != nil {
		return err
	}
	m.replaced++
	m.ID = fmt.Sprintf("member-%s-%d", m.Name, m.replaced)
	if _, err := c.certify(m); err != nil {
		return err
	}
	if err := c.configure(m, true); err != nil {
		return err
	}
	if err := m.boot(ctx); err != nil {
		return err
	}
	m.Start(c.ctx)
	err = eventually(ctx, 2*writeAgain, "add "+m.ID, func(ctx context.Context) error {
		return through.addMember(ctx, m.ID, net.JoinHostPort(m.Address.String(), strconv.Itoa(config.DefaultControl().PeerPort)))
	})
	if err != nil {
		return err
	}
	return c.voting(ctx, m)
}
