package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/agent/podsource"
	"github.com/skiff-run/skiff/agent/podworker"
	"github.com/skiff-run/skiff/agent/statuswriter"
)

// nodeView is the node as the workers see it.
type nodeView struct {
	*node.Manager
	services *node.Services
}

func (n nodeView) Services(ctx context.Context) ([]*v1.Service, error) {
	return n.services.Services(ctx)
}

// tokens makes service account tokens that are bound to a pod.
type tokens struct{ client kubernetes.Interface }

func (t tokens) Token(ctx context.Context, pod *v1.Pod, audience string, seconds *int64) (string, time.Time, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	response, err := t.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, err
	}
	return response.Status.Token, response.Status.ExpirationTimestamp.Time, nil
}

// mirrored writes statuses; those of static pods to their mirrors.
type mirrored struct {
	*statuswriter.Writer
	api *podsource.API
}

func (m *mirrored) Set(pod *v1.Pod, status *v1.PodStatus) {
	if podsource.IsStatic(pod) {
		mirror, ok := m.api.Mirror(pod.UID)
		if !ok {
			return
		}
		m.Observed(mirror)
		pod = mirror
	}
	m.Writer.Set(pod, status)
}

func (m *mirrored) Finish(pod *v1.Pod, status *v1.PodStatus) {
	if !podsource.IsStatic(pod) {
		m.Writer.Finish(pod, status)
	}
}

// mirrorKeeper keeps a mirror pod in the API for every static pod.
type mirrorKeeper struct {
	api    *podsource.API
	pool   *podworker.Pool
	nodes  *node.Manager
	logger *slog.Logger
	// mirrors are those whose static pods were woken for them, by static pod.
	mirrors map[types.UID]types.UID
}

const (
	// mirrorEvery is how often mirrors are looked at though nothing is known to have
	// changed, mirrorSettle how soon after a change of one.
	mirrorEvery  = 10 * time.Second
	mirrorSettle = 200 * time.Millisecond
)

func (k *mirrorKeeper) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.api.MirrorChanges():
			timer.Reset(mirrorSettle)
			continue
		case <-timer.C:
		}
		waiting, err := k.sync(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != told {
			k.logger.Warn("mirror static pods; trying again", "error", err)
		}
		told = ""
		if err != nil {
			told = err.Error()
		}
		if waiting {
			timer.Reset(mirrorSettle)
		} else {
			timer.Reset(mirrorEvery)
		}
	}
}

// sync returns whether a mirror waits for the Node object, which owns it.
func (k *mirrorKeeper) sync(ctx context.Context) (waiting bool, err error) {
	alive := map[types.UID]bool{}
	var errs []error
	for _, pod := range k.pool.Pods() {
		if !podsource.IsStatic(pod) {
			continue
		}
		alive[pod.UID] = true
		if k.nodes.UID() == "" {
			waiting = true
			continue
		}
		if err := k.api.EnsureMirror(ctx, pod, k.nodes.UID()); err != nil {
			errs = append(errs, err)
		}
		if mirror, has := k.api.Mirror(pod.UID); has && k.mirrors[pod.UID] != mirror.UID {
			// A new mirror does not know the status yet.
			k.mirrors[pod.UID] = mirror.UID
			k.pool.Wake(pod.UID)
		}
	}
	maps.DeleteFunc(k.mirrors, func(uid, _ types.UID) bool { return !alive[uid] })
	errs = append(errs, k.api.PruneMirrors(ctx, func(uid types.UID) bool { return alive[uid] }))
	return waiting, errors.Join(errs...)
}

// routes brings the pod ranges of this node and of its peers to the network.
type routes struct {
	host   Host
	logger *slog.Logger
	peers  *node.Peers
	// applied is called when the range of this node was set.
	applied func()
	wake    chan struct{}
}

func newRoutes(host Host, logger *slog.Logger, applied func()) *routes {
	return &routes{host: host, logger: logger, applied: applied, wake: make(chan struct{}, 1)}
}

func (r *routes) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// routesRetry is when routes that could not be set are tried again.
const routesRetry = 2 * time.Second

func (r *routes) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var current []netip.Prefix
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
		if err := r.apply(ctx, &current); err != nil {
			if ctx.Err() == nil {
				r.logger.Warn("set up the pod network; trying again", "error", err)
			}
			timer.Reset(routesRetry)
		}
	}
}

func (r *routes) apply(ctx context.Context, current *[]netip.Prefix) error {
	ranges := r.peers.PodCIDRs()
	if len(ranges) > 0 && !slices.Equal(ranges, *current) {
		if err := r.host.SetPodCIDRs(ctx, ranges); err != nil {
			return fmt.Errorf("range of this node's pods %v: %w", ranges, err)
		}
		*current = ranges
		r.logger.Info("pod range", "ranges", ranges)
		r.applied()
	}
	peers, all := r.peers.List()
	if !all {
		// The routes that a former run left stay until it is known which are wanted:
		// pods and services use them.
		return nil
	}
	if err := r.host.SetPeers(ctx, peers); err != nil {
		return fmt.Errorf("routes to the other nodes: %w", err)
	}
	return nil
}
