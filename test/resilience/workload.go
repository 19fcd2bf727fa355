package resilience

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/skiff-run/skiff/raftstore/check"
)

// Workload says how clients use the API servers.
type Workload struct {
	Servers []*Server
	// Namespace holds the ConfigMaps that are written.
	Namespace string
	Keys      int
	Clients   int
	Watchers  int
	// Rate bounds the requests per second of all clients together.
	Rate float64
	// Timeouts of requests are drawn between these.
	ShortestTimeout, LongestTimeout time.Duration
	Seed                            uint64
	Record                          *Record
	// During names what is going on, for the record.
	During func() string
}

// keyPrefix begins the names of the workload's objects: controllers make
// others in the same namespace.
const keyPrefix = "k-"

func (w *Workload) path() string { return "/api/v1/namespaces/" + w.Namespace + "/configmaps" }
func (w *Workload) prefix() string {
	return "/" + w.Namespace + "/" + keyPrefix
}
func (w *Workload) key(name string) string { return "/" + w.Namespace + "/" + name }

// client is one client: it does one thing at a time.
type client struct {
	*Workload
	name   string
	random *rand.Rand
	limit  *rate.Limiter
	// known are the versions the client believes keys to have: 0 for none.
	known  map[string]int64
	writes int
}

// use runs one client until ctx ends.
func (w *Workload) use(ctx context.Context, n int, limit *rate.Limiter) {
	c := &client{
		Workload: w, name: fmt.Sprintf("client-%d", n), limit: limit, known: map[string]int64{},
		random: rand.New(rand.NewPCG(w.Seed, uint64(n))),
	}
	for limit.Wait(ctx) == nil {
		c.step(ctx)
	}
}

// step does one thing. A request that is under way when ctx ends is waited
// for: its outcome is wanted.
func (c *client) step(ctx context.Context) {
	timeout := c.ShortestTimeout + time.Duration(c.random.Int64N(int64(c.LongestTimeout-c.ShortestTimeout)+1))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	server := c.Servers[c.random.IntN(len(c.Servers))]
	name := keyPrefix + strconv.Itoa(c.random.IntN(c.Keys))
	revision, known := c.known[name]
	switch what := c.random.IntN(100); {
	case what < 10:
		c.list(ctx, server, "")
	case what < 20:
		c.list(ctx, server, "0")
	case what < 45 || !known:
		c.get(ctx, server, name)
	case revision == 0:
		c.put(ctx, server, name, 0)
	case what < 90:
		c.put(ctx, server, name, revision)
	default:
		c.delete(ctx, server, name, revision)
	}
}

// begin makes the record of an operation that begins now.
func (c *client) begin(server *Server, kind check.Kind, key string) *check.Operation {
	return &check.Operation{Client: c.name, Member: server.Name, Kind: kind, Key: key, Call: c.Record.History.Now()}
}

func (c *client) get(ctx context.Context, server *Server, name string) {
	o := c.begin(server, check.Get, c.key(name))
	var found object
	result, err := server.request(ctx, http.MethodGet, c.path()+"/"+name, nil, nil, &found)
	c.Record.count("get", readOutcome(result))
	switch {
	case result == done:
		o.Found = c.version(&found)
	case result != refused || !hasCode(err, http.StatusNotFound):
		delete(c.known, name)
		return
	}
	c.known[name] = revisionOf(o.Found)
	c.Record.History.Add(o)
}

// readOutcome: a read that failed has no effect, ever.
func readOutcome(result outcome) outcome {
	if result == unknown {
		return notMade
	}
	return result
}

func (c *client) list(ctx context.Context, server *Server, resourceVersion string) {
	o := c.begin(server, check.List, c.prefix())
	var found object
	what := "list"
	query := url.Values{}
	if resourceVersion != "" {
		what += " rv=" + resourceVersion
		query.Set("resourceVersion", resourceVersion)
	}
	result, _ := server.request(ctx, http.MethodGet, c.path(), query, nil, &found)
	c.Record.count(what, readOutcome(result))
	if result != done {
		return
	}
	o.Revision = found.revision()
	if resourceVersion != "" {
		o.At = o.Revision // it may be old, but must be what was there then
	}
	for _, each := range found.Items {
		if strings.HasPrefix(each.Metadata.Name, keyPrefix) {
			o.Listed = append(o.Listed, c.version(each))
		}
	}
	if resourceVersion == "" {
		clear(c.known)
		for i := range c.Keys {
			c.known[keyPrefix+strconv.Itoa(i)] = 0
		}
		for _, v := range o.Listed {
			c.known[strings.TrimPrefix(v.Key, c.key(""))] = v.ModRevision
		}
	}
	c.Record.History.Add(o)
}

// put creates a key, if revision is 0, or replaces the version it names.
func (c *client) put(ctx context.Context, server *Server, name string, revision int64) {
	c.writes++
	o := c.begin(server, check.Put, c.key(name))
	o.Value, o.Expect = fmt.Sprintf("%s/%d", c.name, c.writes), revision
	body := &object{APIVersion: "v1", Kind: "ConfigMap", Metadata: metadata{Name: name, Namespace: c.Namespace}, Data: map[string]string{"v": o.Value}}
	what, method, path := "create", http.MethodPost, c.path()
	if revision != 0 {
		what, method, path = "update", http.MethodPut, c.path()+"/"+name
		body.Metadata.ResourceVersion = strconv.FormatInt(revision, 10)
	}
	var made object
	result, _ := server.request(ctx, method, path, nil, body, &made)
	c.ended(o, what, name, result, made.revision())
}

func (c *client) delete(ctx context.Context, server *Server, name string, revision int64) {
	o := c.begin(server, check.Delete, c.key(name))
	o.Expect = revision
	body := map[string]any{
		"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": map[string]string{"resourceVersion": strconv.FormatInt(revision, 10)},
	}
	var answer object
	result, _ := server.request(ctx, http.MethodDelete, c.path()+"/"+name, nil, body, &answer)
	c.ended(o, "delete", name, result, 0)
}

// ended records a write.
func (c *client) ended(o *check.Operation, what, name string, result outcome, revision int64) {
	c.Record.count(what, result)
	delete(c.known, name)
	switch result {
	case done:
		o.Succeeded, o.Revision = true, revision
		c.known[name] = revision
		c.Record.acknowledged(c.During())
	case refused:
		o.Blind = true // HTTP says that something else is there, not what
	case notMade:
		return
	case unknown:
		o.Return = check.Never
	}
	c.Record.History.Add(o)
}

// version is an object as the checkers know it.
func (w *Workload) version(o *object) *check.Version {
	return &check.Version{Key: w.key(o.Metadata.Name), Value: o.Data["v"], ModRevision: o.revision()}
}

func revisionOf(v *check.Version) int64 {
	if v == nil {
		return 0
	}
	return v.ModRevision
}
