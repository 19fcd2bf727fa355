package apiclient

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
)

func TestTheDialerMovesOnWhenAnAddressFailsAndThenStays(t *testing.T) {
	t.Parallel()
	down := map[string]bool{}
	var tried []string
	d := NewDialer([]string{"a:1", "b:1", "c:1"})
	d.dial = func(_ context.Context, _, address string) (net.Conn, error) {
		tried = append(tried, address)
		if down[address] {
			return nil, errors.New("refused")
		}
		client, server := net.Pipe()
		server.Close()
		return client, nil
	}
	connect := func() error {
		conn, err := d.DialContext(t.Context(), "tcp", "whatever:6443")
		if err == nil {
			conn.Close()
		}
		return err
	}
	steps := []struct {
		down []string
		want []string
		ok   bool
	}{
		{nil, []string{"a:1"}, true},
		{[]string{"a:1"}, []string{"a:1", "b:1"}, true},
		{[]string{"a:1"}, []string{"b:1"}, true},
		{[]string{"b:1", "c:1"}, []string{"b:1", "c:1", "a:1"}, true},
		{[]string{"a:1", "b:1", "c:1"}, []string{"a:1", "b:1", "c:1"}, false},
	}
	for i, s := range steps {
		tried, down = nil, map[string]bool{}
		for _, a := range s.down {
			down[a] = true
		}
		if err := connect(); (err == nil) != s.ok || !slices.Equal(tried, s.want) {
			t.Errorf("step %d: tried %q, error %v; want %q", i, tried, err, s.want)
		}
	}
}
