package registry

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Column is a column that kubectl get always prints.
func Column(name, kind, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: kind, Description: description}
}

// NameColumn is the first column of nearly every kind.
func NameColumn() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
}

// AgeColumn is how long an object exists.
func AgeColumn() metav1.TableColumnDefinition {
	return Column("Age", "string", metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"])
}

// Wide makes a column one that only kubectl get -o wide prints.
func Wide(c metav1.TableColumnDefinition) metav1.TableColumnDefinition {
	c.Priority = 1
	return c
}

// Age is the time since then in kubectl's words.
func Age(since metav1.Time) string {
	if since.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(since.Time))
}

// table prints the objects of a kind.
type table[T Object] struct{ kind *Kind[T] }

// ConvertToTable implements rest.TableConvertor.
func (t table[T]) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	if t.kind.Row == nil {
		return rest.NewDefaultTableConvertor(t.kind.Resource()).ConvertToTable(ctx, object, options)
	}
	out := &metav1.Table{Rows: []metav1.TableRow{}}
	if one, ok := object.(T); ok {
		out.ResourceVersion = one.GetResourceVersion()
		out.Rows = append(out.Rows, metav1.TableRow{Cells: t.kind.Row(one), Object: runtime.RawExtension{Object: one}})
	} else {
		if err := eachItem(object, func(item runtime.Object) {
			if one, ok := item.(T); ok {
				out.Rows = append(out.Rows, metav1.TableRow{Cells: t.kind.Row(one), Object: runtime.RawExtension{Object: item}})
			}
		}); err != nil {
			return rest.NewDefaultTableConvertor(t.kind.Resource()).ConvertToTable(ctx, object, options)
		}
		if list, err := meta.ListAccessor(object); err == nil {
			out.ResourceVersion, out.Continue = list.GetResourceVersion(), list.GetContinue()
			out.RemainingItemCount = list.GetRemainingItemCount()
		}
	}
	if tableOptions, ok := options.(*metav1.TableOptions); !ok || !tableOptions.NoHeaders {
		out.ColumnDefinitions = t.kind.Columns
	}
	return out, nil
}

func eachItem(list runtime.Object, see func(runtime.Object)) error {
	return meta.EachListItem(list, func(item runtime.Object) error {
		see(item)
		return nil
	})
}
