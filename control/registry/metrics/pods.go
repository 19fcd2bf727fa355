package metrics

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// podMetrics serves PodMetrics.
type podMetrics struct {
	pods   rest.Lister
	source *source
}

var (
	_ rest.KindProvider         = (*podMetrics)(nil)
	_ rest.Scoper               = (*podMetrics)(nil)
	_ rest.Getter               = (*podMetrics)(nil)
	_ rest.Lister               = (*podMetrics)(nil)
	_ rest.SingularNameProvider = (*podMetrics)(nil)
)

// New, NewList, Destroy, Kind, NamespaceScoped and GetSingularName describe the resource.
func (p *podMetrics) New() runtime.Object     { return &metricsv1beta1.PodMetrics{} }
func (p *podMetrics) NewList() runtime.Object { return &metricsv1beta1.PodMetricsList{} }
func (p *podMetrics) Destroy()                {}
func (p *podMetrics) Kind() string            { return "PodMetrics" }
func (p *podMetrics) NamespaceScoped() bool   { return true }
func (p *podMetrics) GetSingularName() string { return "" }

// Get implements rest.Getter.
func (p *podMetrics) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	list, err := p.list(ctx, &internalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name)})
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, errors.NewNotFound(metricsv1beta1.Resource("pods"), request.NamespaceValue(ctx)+"/"+name)
	}
	return &list.Items[0], nil
}

// List implements rest.Lister. Pods that do not run, or not long enough to say
// what they use, are missing.
func (p *podMetrics) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	return p.list(ctx, options)
}

func (p *podMetrics) list(ctx context.Context, options *internalversion.ListOptions) (*metricsv1beta1.PodMetricsList, error) {
	selection := &internalversion.ListOptions{}
	if options != nil {
		selection.LabelSelector, selection.FieldSelector = options.LabelSelector, options.FieldSelector
	}
	object, err := p.pods.List(ctx, selection)
	if err != nil {
		return nil, err
	}
	pods, ok := object.(*corev1.PodList)
	if !ok {
		return nil, fmt.Errorf("list pods: got %T", object)
	}
	nodes := map[string]bool{}
	for i := range pods.Items {
		if measured(&pods.Items[i]) {
			nodes[pods.Items[i].Spec.NodeName] = true
		}
	}
	told := map[string]*metricsv1beta1.PodMetrics{}
	for node, top := range p.source.of(ctx, slices.Collect(maps.Keys(nodes))) {
		for i := range top.Pods {
			m := &top.Pods[i]
			told[node+"/"+m.Namespace+"/"+m.Name] = m
		}
	}
	list := &metricsv1beta1.PodMetricsList{Items: []metricsv1beta1.PodMetrics{}}
	for i := range pods.Items {
		pod := &pods.Items[i]
		m := told[pod.Spec.NodeName+"/"+pod.Namespace+"/"+pod.Name]
		if m == nil || !measured(pod) {
			continue
		}
		one := *m
		one.ObjectMeta = metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels, CreationTimestamp: metav1.Now()}
		list.Items = append(list.Items, one)
	}
	return list, nil
}

// measured pods have a node and containers that may run.
func measured(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// ConvertToTable implements rest.TableConvertor.
func (p *podMetrics) ConvertToTable(_ context.Context, object, _ runtime.Object) (*metav1.Table, error) {
	var items []metricsv1beta1.PodMetrics
	switch o := object.(type) {
	case *metricsv1beta1.PodMetrics:
		items = []metricsv1beta1.PodMetrics{*o}
	case *metricsv1beta1.PodMetricsList:
		items = o.Items
	default:
		return nil, fmt.Errorf("table of pod metrics: got %T", object)
	}
	t := &metav1.Table{ColumnDefinitions: columns(), Rows: []metav1.TableRow{}}
	for i := range items {
		total := corev1.ResourceList{}
		for _, c := range items[i].Containers {
			for name, quantity := range c.Usage {
				sum := total[name]
				sum.Add(quantity)
				total[name] = sum
			}
		}
		t.Rows = append(t.Rows, row(items[i].Name, total, items[i].Window, &items[i]))
	}
	return t, nil
}
