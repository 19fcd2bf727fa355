// Package operations answers what an operator's command line asks an API
// server below /skiff.dev/v1: it lets machines join, tells how this member
// sees itself and the others, and carries changes of the store's membership.
//
// In flow requests that the API server has authenticated and authorized; out
// flow calls of the store and objects of the API. It signs certificates for
// joining workers and hands the authorities to joining control machines; it
// knows nothing of how machines are set up.
package operations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/raftstore"
)

// requestLimit bounds the body of a request in bytes: certificate requests are small.
const requestLimit = 256 << 10

// Store is what is asked of this member of the store. It is a *raftstore.Store.
type Store interface {
	Status() raftstore.Status
	Members(context.Context) ([]raftstore.Member, error)
	AddMember(ctx context.Context, id, address string) error
	PromoteMember(ctx context.Context, id string) error
	RemoveMember(ctx context.Context, id string) error
	TransferLeadership(ctx context.Context, id string) error
	SaveSnapshot(context.Context, io.Writer) (raftstore.SnapshotInfo, error)
}

// Config of the operations of one control machine.
type Config struct {
	Store Store
	// Client acts as the API server itself.
	Client kubernetes.Interface
	// PKIDir holds the certificates and keys under kubeadm's names.
	PKIDir string
	// EncryptionConfig is the file that says how objects are encrypted, or empty.
	EncryptionConfig string
	// Settings are what a joining machine must agree on.
	Settings operator.Settings
	// NodeName and Address, host:port of the API server, are this machine's.
	NodeName, Address string
	Version           string
	// Checks are what this machine checks of itself, by name.
	Checks map[string]func(context.Context) error
	Logger *slog.Logger
}

// Operations answers requests. Its methods are safe for concurrent use.
type Operations struct {
	Config
	mux     *http.ServeMux
	started time.Time
}

// New returns the operations of a control machine.
func New(config Config) *Operations {
	o := &Operations{Config: config, mux: http.NewServeMux(), started: time.Now()}
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET " + operator.JoinPath:         o.terms,
		"POST " + operator.JoinControlPath: o.joinControl,
		"POST " + operator.JoinWorkerPath:  o.joinWorker,
		"GET " + operator.ServersPath:      o.servers,
		"GET " + operator.StatusPath:       o.status,

		"GET " + operator.MembersPath:                    o.members,
		"POST " + operator.MembersPath:                   o.addMember,
		"DELETE " + operator.MembersPath + "/{id}":       o.removeMember,
		"POST " + operator.MembersPath + "/{id}/promote": o.promoteMember,
		"POST " + operator.TransferPath:                  o.transfer,
	} {
		o.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r = r.WithContext(own(r.Context()))
			r.Body = http.MaxBytesReader(w, r.Body, requestLimit)
			reply(w, r, answer)
		})
	}
	o.mux.HandleFunc("GET "+operator.SnapshotPath, o.snapshot)
	return o
}

// ownContext ends with the request's and knows who asks, but carries nothing
// else of it: what the handlers ask of the API are requests of their own, which
// must not write into the audit record of the one they answer.
type ownContext struct {
	context.Context
	who user.Info
}

func own(ctx context.Context) context.Context {
	who, _ := genericapirequest.UserFrom(ctx)
	return ownContext{ctx, who}
}

// Value implements context.Context.
func (c ownContext) Value(key any) any {
	if key == (asker{}) {
		return c.who
	}
	return nil
}

// asker is the context key of who asks.
type asker struct{}

// ServeHTTP implements http.Handler.
func (o *Operations) ServeHTTP(w http.ResponseWriter, r *http.Request) { o.mux.ServeHTTP(w, r) }

// reply writes the answer, or the error as a metav1.Status.
func reply(w http.ResponseWriter, r *http.Request, answer func(*http.Request) (any, error)) {
	result, err := answer(r)
	code := http.StatusOK
	if err != nil {
		status := statusOf(err)
		result, code = status, int(status.Code)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// The client is gone when this fails.
	_ = json.NewEncoder(w).Encode(result)
}

// statusOf is the error as clients of the API know errors.
func statusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	if status.Code == 0 {
		status.Code = http.StatusInternalServerError
	}
	return &status
}

// decode reads the body of a request.
func decode(r *http.Request, into any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("the request cannot be read: %v; use a command line of the server's version", err))
	}
	return nil
}

// requester is the name of who asks, for the log.
func requester(r *http.Request) string {
	if who, known := r.Context().Value(asker{}).(user.Info); known {
		return who.GetName()
	}
	return ""
}

// hasGroup says whether who asks is in the group.
func hasGroup(r *http.Request, group string) bool {
	who, known := r.Context().Value(asker{}).(user.Info)
	return known && slices.Contains(who.GetGroups(), group)
}

// servers tells agents and proxies where else they find the API.
func (o *Operations) servers(r *http.Request) (any, error) {
	return operator.Servers{Addresses: o.controlAddresses(r.Context())}, nil
}

// controlAddresses are host:port of every API server, this one first.
func (o *Operations) controlAddresses(ctx context.Context) []string {
	addresses := []string{o.Address}
	slice, err := o.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		// The one that answers is still known.
		o.Logger.Warn("cannot read the addresses of the API servers", "error", err)
		return addresses
	}
	for _, endpoint := range slice.Endpoints {
		for _, address := range endpoint.Addresses {
			for _, port := range slice.Ports {
				if port.Port == nil {
					continue
				}
				if each := net.JoinHostPort(address, strconv.Itoa(int(*port.Port))); !slices.Contains(addresses, each) {
					addresses = append(addresses, each)
				}
			}
		}
	}
	return addresses
}
