package metrics

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/skiff-run/skiff/control/registry"
)

// nodeMetrics serves NodeMetrics.
type nodeMetrics struct {
	nodes  nodeReader
	source *source
}

var (
	_ rest.KindProvider         = (*nodeMetrics)(nil)
	_ rest.Scoper               = (*nodeMetrics)(nil)
	_ rest.Getter               = (*nodeMetrics)(nil)
	_ rest.Lister               = (*nodeMetrics)(nil)
	_ rest.SingularNameProvider = (*nodeMetrics)(nil)
)

// New, NewList, Destroy, Kind, NamespaceScoped and GetSingularName describe the resource.
func (n *nodeMetrics) New() runtime.Object     { return &metricsv1beta1.NodeMetrics{} }
func (n *nodeMetrics) NewList() runtime.Object { return &metricsv1beta1.NodeMetricsList{} }
func (n *nodeMetrics) Destroy()                {}
func (n *nodeMetrics) Kind() string            { return "NodeMetrics" }
func (n *nodeMetrics) NamespaceScoped() bool   { return false }
func (n *nodeMetrics) GetSingularName() string { return "" }

// Get implements rest.Getter.
func (n *nodeMetrics) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	node, err := n.nodes.Read(ctx, name)
	if errors.IsNotFound(err) {
		return nil, errors.NewNotFound(metricsv1beta1.Resource("nodes"), name)
	}
	if err != nil {
		return nil, err
	}
	told := n.source.of(ctx, []string{name})[name]
	if told.Node == nil {
		return nil, errors.NewNotFound(metricsv1beta1.Resource("nodes"), name)
	}
	return complete(told.Node, node), nil
}

// List implements rest.Lister. Nodes whose agents do not answer are missing.
func (n *nodeMetrics) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	selection := &internalversion.ListOptions{}
	if options != nil {
		selection.LabelSelector, selection.FieldSelector = options.LabelSelector, options.FieldSelector
	}
	object, err := n.nodes.List(ctx, selection)
	if err != nil {
		return nil, err
	}
	nodes, ok := object.(*corev1.NodeList)
	if !ok {
		return nil, fmt.Errorf("list nodes: got %T", object)
	}
	names := make([]string, 0, len(nodes.Items))
	for i := range nodes.Items {
		names = append(names, nodes.Items[i].Name)
	}
	told := n.source.of(ctx, names)
	list := &metricsv1beta1.NodeMetricsList{Items: []metricsv1beta1.NodeMetrics{}}
	for i := range nodes.Items {
		if m := told[nodes.Items[i].Name].Node; m != nil {
			list.Items = append(list.Items, *complete(m, &nodes.Items[i]))
		}
	}
	return list, nil
}

// complete gives an agent's figures the identity the API knows.
func complete(told *metricsv1beta1.NodeMetrics, node *corev1.Node) *metricsv1beta1.NodeMetrics {
	one := *told
	one.ObjectMeta = metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: metav1.Now()}
	return &one
}

// ConvertToTable implements rest.TableConvertor.
func (n *nodeMetrics) ConvertToTable(_ context.Context, object, _ runtime.Object) (*metav1.Table, error) {
	var items []metricsv1beta1.NodeMetrics
	switch o := object.(type) {
	case *metricsv1beta1.NodeMetrics:
		items = []metricsv1beta1.NodeMetrics{*o}
	case *metricsv1beta1.NodeMetricsList:
		items = o.Items
	default:
		return nil, fmt.Errorf("table of node metrics: got %T", object)
	}
	t := &metav1.Table{ColumnDefinitions: columns(), Rows: []metav1.TableRow{}}
	for i := range items {
		t.Rows = append(t.Rows, row(items[i].Name, items[i].Usage, items[i].Window, &items[i]))
	}
	return t, nil
}

func columns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		registry.NameColumn(), registry.Column("cpu", "string", "computing time used in a second"),
		registry.Column("memory", "string", "working set"), registry.Column("Window", "string", "over what time"),
	}
}

func row(name string, used corev1.ResourceList, window metav1.Duration, object runtime.Object) metav1.TableRow {
	return metav1.TableRow{Cells: []any{name, used.Cpu().String(), used.Memory().String(), window.Duration.String()}, Object: runtime.RawExtension{Object: object}}
}
