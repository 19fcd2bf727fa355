package authorization

import (
	"errors"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// specAttributes is the request that a review asks about.
func specAttributes(spec *authorizationv1.SubjectAccessReviewSpec) authorizer.AttributesRecord {
	who := &user.DefaultInfo{Name: spec.User, Groups: spec.Groups, UID: spec.UID}
	if spec.Extra != nil {
		who.Extra = make(map[string][]string, len(spec.Extra))
		for key, values := range spec.Extra {
			who.Extra[key] = values
		}
	}
	return attributesOf(who, spec.ResourceAttributes, spec.NonResourceAttributes)
}

// attributesOf needs one of resource and other, as validation has made sure of.
func attributesOf(who user.Info, resource *authorizationv1.ResourceAttributes, other *authorizationv1.NonResourceAttributes) authorizer.AttributesRecord {
	if resource == nil {
		return authorizer.AttributesRecord{User: who, Path: other.Path, Verb: other.Verb}
	}
	out := authorizer.AttributesRecord{
		User: who, Verb: resource.Verb, Namespace: resource.Namespace, APIGroup: resource.Group, APIVersion: resource.Version,
		Resource: resource.Resource, Subresource: resource.Subresource, Name: resource.Name, ResourceRequest: true,
	}
	if out.APIVersion == "" {
		out.APIVersion = "*"
	}
	if resource.LabelSelector != nil {
		out.LabelSelectorRequirements, out.LabelSelectorParsingErr = labelRequirements(resource.LabelSelector)
	}
	if resource.FieldSelector != nil {
		out.FieldSelectorRequirements, out.FieldSelectorParsingErr = fieldRequirements(resource.FieldSelector)
	}
	return out
}

// labelRequirements returns what it understands of a selector with an error
// about the rest. To leave out a requirement is safe: fewer of them ask for
// more, which needs more rights.
func labelRequirements(selector *authorizationv1.LabelSelectorAttributes) (labels.Requirements, error) {
	if len(selector.Requirements) == 0 {
		if selector.RawSelector == "" {
			return nil, nil
		}
		parsed, err := labels.Parse(selector.RawSelector)
		if err != nil {
			return nil, err
		}
		requirements, _ := parsed.Requirements()
		return requirements, nil
	}
	operators := map[metav1.LabelSelectorOperator]selection.Operator{
		metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
		metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	var out labels.Requirements
	var errs []error
	for _, each := range selector.Requirements {
		operator, known := operators[each.Operator]
		if !known {
			errs = append(errs, fmt.Errorf("%q is not a valid label selector operator", each.Operator))
			continue
		}
		requirement, err := labels.NewRequirement(each.Key, operator, each.Values)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, *requirement)
	}
	return out, utilerrors.NewAggregate(errs)
}

// fieldRequirements is labelRequirements for fields, of which selectors know
// only = and !=.
func fieldRequirements(selector *authorizationv1.FieldSelectorAttributes) (fields.Requirements, error) {
	if len(selector.Requirements) == 0 {
		if selector.RawSelector == "" {
			return nil, nil
		}
		parsed, err := fields.ParseSelector(selector.RawSelector)
		if err != nil {
			return nil, err
		}
		return parsed.Requirements(), nil
	}
	var out fields.Requirements
	var errs []error
	for _, each := range selector.Requirements {
		requirement, err := fieldRequirement(each)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, requirement)
	}
	return out, utilerrors.NewAggregate(errs)
}

func fieldRequirement(r metav1.FieldSelectorRequirement) (fields.Requirement, error) {
	if len(r.Values) > 1 {
		return fields.Requirement{}, errors.New("fieldSelectors do not yet support multiple values")
	}
	switch r.Operator {
	case metav1.FieldSelectorOpIn:
		if len(r.Values) == 0 {
			return fields.Requirement{}, errors.New("fieldSelectors in must have one value")
		}
		return fields.Requirement{Field: r.Key, Operator: selection.Equals, Value: r.Values[0]}, nil
	case metav1.FieldSelectorOpNotIn:
		if len(r.Values) == 0 {
			return fields.Requirement{}, errors.New("fieldSelectors not in must have one value")
		}
		return fields.Requirement{Field: r.Key, Operator: selection.NotEquals, Value: r.Values[0]}, nil
	case metav1.FieldSelectorOpExists, metav1.FieldSelectorOpDoesNotExist:
		return fields.Requirement{}, fmt.Errorf("fieldSelectors do not yet support %v", r.Operator)
	}
	return fields.Requirement{}, fmt.Errorf("%q is not a valid field selector operator", r.Operator)
}
