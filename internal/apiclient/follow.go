package apiclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/internal/operator"
)

const (
	// askEvery is how often the addresses of the API servers are asked for, on
	// average.
	askEvery = 30 * time.Second
	// askFirst is how often they are asked for until there was a first answer.
	askFirst = 2 * time.Second
	// askLimit bounds one question.
	askLimit = 5 * time.Second
)

// Follow keeps the addresses of all API servers up to date until ctx ends.
func (c *Connection) Follow(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	for known := false; ctx.Err() == nil; {
		pause := askEvery/2 + rand.N(askEvery)
		switch err := c.learn(ctx, client); {
		case err == nil:
			known = true
		case ctx.Err() == nil:
			c.logger.Debug("cannot ask for the addresses of the API servers; those known are used", "error", err)
			if !known {
				pause = askFirst // until then there may be nowhere to go
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (c *Connection) learn(ctx context.Context, client *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.Config.Host, "/")+operator.ServersPath, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, data)
	}
	var servers operator.Servers
	if err := json.Unmarshal(data, &servers); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if len(servers.Addresses) == 0 {
		return errors.New("the answer names no API server")
	}
	slices.Sort(servers.Addresses)
	all := unique(append(slices.Clone(c.configured), servers.Addresses...))
	if slices.Equal(all, c.dialer.Addresses()) {
		return nil
	}
	c.logger.Info("API servers", "addresses", servers.Addresses)
	c.dialer.Set(all)
	temporary, err := os.CreateTemp(filepath.Dir(c.remembered), ".servers-*")
	if err != nil {
		return fmt.Errorf("remember the addresses: %w", err)
	}
	_, err = temporary.WriteString(strings.Join(servers.Addresses, "\n") + "\n")
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), c.remembered)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return fmt.Errorf("remember the addresses: %w", err)
	}
	return nil
}
