package namespace

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/skiff-run/skiff/control/controllers/podstate"
)

var podResource = corev1.SchemeGroupVersion.WithResource("pods")

// findings is what one look through a namespace's contents brought to light.
type findings struct {
	discovery error
	parsing   error
	contents  []error
	// remaining and finalizers count the objects that are left, by resource and by
	// finalizer.
	remaining  map[schema.GroupVersionResource]int
	finalizers map[string]int
}

func (f *findings) left() bool { return len(f.remaining) > 0 }

func (f *findings) failure() error {
	return errors.Join(append([]error{f.discovery, f.parsing}, f.contents...)...)
}

// empty deletes what is in the namespace, pods first and the rest only when none
// is left, and returns what it found.
func (c *Controller) empty(ctx context.Context, ns *corev1.Namespace) *findings {
	f := &findings{remaining: map[schema.GroupVersionResource]int{}, finalizers: map[string]int{}}
	lists, err := discovery.ServerPreferredResources(c.client.Discovery())
	if err == nil && len(lists) == 0 {
		// To believe that would be to leave everything behind.
		err = errors.New("the API server names no resources")
	}
	f.discovery = err
	deletable := discovery.FilteredBy(discovery.ResourcePredicateFunc(func(_ string, resource *metav1.APIResource) bool {
		return resource.Namespaced && supports(resource, "list", "delete")
	}), lists)
	resources, err := discovery.GroupVersionResources(deletable)
	f.parsing = err
	if _, served := resources[podResource]; served {
		if c.delete(ctx, podResource, ns, f); f.left() || len(f.contents) > 0 {
			return f
		}
	}
	for resource := range resources {
		if resource != podResource {
			c.delete(ctx, resource, ns, f)
		}
	}
	return f
}

func supports(resource *metav1.APIResource, verbs ...string) bool {
	return discovery.SupportsAllVerbs{Verbs: verbs}.Match("", resource)
}

// delete deletes all of a resource's objects in the namespace and notes what is
// left.
func (c *Controller) delete(ctx context.Context, resource schema.GroupVersionResource, ns *corev1.Namespace, f *findings) {
	objects, err := c.list(ctx, resource, ns.Name)
	if err == nil && len(objects) > 0 {
		if err = c.deleteAll(ctx, resource, ns.Name, objects); err == nil {
			objects, err = c.list(ctx, resource, ns.Name)
		}
	}
	if err != nil {
		f.contents = append(f.contents, err)
		return
	}
	if len(objects) == 0 {
		return
	}
	f.remaining[resource] = len(objects)
	explained := resource == podResource && c.podsMayTakeTheirTime(ns)
	for _, object := range objects {
		for _, finalizer := range object.Finalizers {
			f.finalizers[finalizer]++
			explained = true
		}
	}
	if !explained {
		f.contents = append(f.contents, fmt.Errorf("unexpected items still remain in namespace: %s for gvr: %v", ns.Name, resource))
	}
}

func (c *Controller) list(ctx context.Context, resource schema.GroupVersionResource, namespace string) ([]metav1.PartialObjectMetadata, error) {
	list, err := c.metadata.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if unsupported(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", resource.Resource, err)
	}
	return list.Items, nil
}

// deleteAll deletes a collection in one call, or one by one where the resource
// does not support that.
func (c *Controller) deleteAll(ctx context.Context, resource schema.GroupVersionResource, namespace string, objects []metav1.PartialObjectMetadata) error {
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	client := c.metadata.Resource(resource).Namespace(namespace)
	err := client.DeleteCollection(ctx, options, metav1.ListOptions{})
	if err == nil {
		return nil
	}
	if !unsupported(err) {
		return fmt.Errorf("delete all %s: %w", resource.Resource, err)
	}
	for _, object := range objects {
		if err := client.Delete(ctx, object.Name, options); err != nil && !unsupported(err) {
			return fmt.Errorf("delete %s %s: %w", resource.Resource, object.Name, err)
		}
	}
	return nil
}

// unsupported tells whether there is nothing to be done about an error: the
// resource does not do this, or it is no longer served.
func unsupported(err error) bool {
	return apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err)
}

// podsMayTakeTheirTime tells whether the longest grace period of the namespace's
// pods has not passed since its deletion.
func (c *Controller) podsMayTakeTheirTime(ns *corev1.Namespace) bool {
	pods, err := c.pods.Pods(ns.Name).List(labels.Everything())
	if err != nil {
		return false
	}
	longest := int64(0)
	for _, pod := range pods {
		if !podstate.Finished(pod) && pod.Spec.TerminationGracePeriodSeconds != nil {
			longest = max(longest, *pod.Spec.TerminationGracePeriodSeconds)
		}
	}
	return c.now().Sub(ns.DeletionTimestamp.Time) < time.Duration(longest)*time.Second
}
