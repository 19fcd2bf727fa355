package core

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-run/skiff/control/registry"
)

// componentLimit is how long a component may take to say that it is well.
const componentLimit = 2 * time.Second

// componentStatuses answers with the health of the control plane's parts at
// the moment of the question; nothing is stored.
type componentStatuses struct{ deps *registry.Dependencies }

// New implements rest.Storage.
func (componentStatuses) New() runtime.Object { return &corev1.ComponentStatus{} }

// NewList implements rest.Lister.
func (componentStatuses) NewList() runtime.Object { return &corev1.ComponentStatusList{} }

// Destroy implements rest.Storage.
func (componentStatuses) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (componentStatuses) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (componentStatuses) GetSingularName() string { return "componentstatus" }

// ShortNames implements rest.ShortNamesProvider.
func (componentStatuses) ShortNames() []string { return []string{"cs"} }

// List implements rest.Lister.
func (c componentStatuses) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	list := &corev1.ComponentStatusList{Items: []corev1.ComponentStatus{}}
	for _, name := range slices.Sorted(maps.Keys(c.deps.Components)) {
		status := c.status(ctx, name)
		if options != nil && options.LabelSelector != nil && !options.LabelSelector.Matches(labels.Set(status.Labels)) {
			continue
		}
		list.Items = append(list.Items, status)
	}
	return list, nil
}

// Get implements rest.Getter.
func (c componentStatuses) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	if _, known := c.deps.Components[name]; !known {
		return nil, apierrors.NewNotFound(corev1.Resource("componentstatus"), name)
	}
	status := c.status(ctx, name)
	return &status, nil
}

func (c componentStatuses) status(ctx context.Context, name string) corev1.ComponentStatus {
	ctx, cancel := context.WithTimeout(ctx, componentLimit)
	defer cancel()
	condition := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if err := c.deps.Components[name](ctx); err != nil {
		condition.Status, condition.Message, condition.Error = corev1.ConditionFalse, "", err.Error()
	}
	return corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{condition}}
}

// ConvertToTable implements rest.TableConvertor.
func (c componentStatuses) ConvertToTable(_ context.Context, object, _ runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		registry.NameColumn(),
		registry.Column("Status", "string", "Status of the component conditions"),
		registry.Column("Message", "string", "Message of the component conditions"),
		registry.Column("Error", "string", "Error of the component conditions"),
	}, Rows: []metav1.TableRow{}}
	var items []corev1.ComponentStatus
	switch o := object.(type) {
	case *corev1.ComponentStatus:
		items = []corev1.ComponentStatus{*o}
	case *corev1.ComponentStatusList:
		items = o.Items
	}
	for i := range items {
		status, message, problem := "Unknown", "", ""
		for _, condition := range items[i].Conditions {
			if condition.Type == corev1.ComponentHealthy {
				status = "Unhealthy"
				if condition.Status == corev1.ConditionTrue {
					status = "Healthy"
				}
				message, problem = condition.Message, condition.Error
			}
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{items[i].Name, status, message, problem}, Object: runtime.RawExtension{Object: &items[i]}})
	}
	return table, nil
}

func addComponentStatuses(deps *registry.Dependencies, storages registry.Storages) error {
	storages["componentstatuses"] = componentStatuses{deps}
	return nil
}
