// Command caller is the load of the proof: it runs on a machine and calls a
// service by new connections, by one that it keeps, and by name, and counts what
// fails until SIGTERM. Then it writes what it counted.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/skiff-run/skiff/test/machines/proof/tally"
)

// requestLimit is when a request has failed: nobody waits longer.
const requestLimit = 5 * time.Second

func main() {
	address := flag.String("address", "", "address and port of the service, which speaks HTTP")
	name := flag.String("name", "", "name of the service in the cluster's DNS")
	dns := flag.String("dns", "", "address and port of the cluster's DNS")
	file := flag.String("report", "", "where to write what was counted")
	once := flag.Bool("once", false, "make one call of each kind and fail if one of them does")
	flag.Parse()
	if *once {
		if err := callOnce(*address, *name, *dns); err != nil {
			log.Fatal(err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	var report tally.Report
	var group sync.WaitGroup
	group.Go(func() { every(ctx, 25*time.Millisecond, &report.New, fresh(*address)) })
	kept := &connection{address: *address}
	group.Go(func() { every(ctx, 100*time.Millisecond, &report.Kept, kept.request); kept.close() })
	group.Go(func() { every(ctx, 250*time.Millisecond, &report.Names, lookup(*name, *dns)) })
	group.Wait()
	content, err := json.Marshal(report)
	if err == nil {
		err = os.WriteFile(*file, content, 0o600)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func callOnce(address, name, dns string) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	return errors.Join(fresh(address)(ctx), lookup(name, dns)(ctx))
}

// every calls until ctx ends and counts. A call that is under way then is
// finished, and counts.
func every(ctx context.Context, pause time.Duration, count *tally.Count, call func(context.Context) error) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		began := time.Now()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestLimit)
		count.Add(began, time.Since, call(limited))
		cancel()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// fresh makes requests of which each has a connection of its own.
func fresh(address string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		return read(response)
	}
}

func read(response *http.Response) error {
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	return nil
}

// connection is one that is kept. After a failure it is another one.
type connection struct {
	address string
	open    net.Conn
	reader  *bufio.Reader
}

func (c *connection) request(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.open == nil {
		if c.open, err = (&net.Dialer{}).DialContext(ctx, "tcp", c.address); err != nil {
			return err
		}
		c.reader = bufio.NewReader(c.open)
	}
	deadline, _ := ctx.Deadline()
	if err := c.open.SetDeadline(deadline); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+"/", nil)
	if err != nil {
		return err
	}
	if err := request.Write(c.open); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.reader, request)
	if err != nil {
		return err
	}
	return read(response)
}

func (c *connection) close() {
	if c.open != nil {
		c.open.Close()
		c.open = nil
	}
}

// lookup asks for a name as a C library would: again when no answer comes.
func lookup(name, server string) func(context.Context) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	return func(ctx context.Context) error {
		// The resolver itself waits 5 s for an answer before it asks again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*requestLimit)
		defer cancel()
		_, err := resolver.LookupNetIP(ctx, "ip4", name)
		return err
	}
}
