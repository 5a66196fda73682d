package main_test

import (
	"context"

	"github.com/inlookup/inlookup"
)

// answering is a Resolver that knows some answers by heart.
type answering map[inlookup.Query]inlookup.Answer

func (a answering) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if answer, ok := a[q]; ok {
		return answer, nil
	}
	return "", inlookup.ErrUnavailable
}
