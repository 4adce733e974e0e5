package wire

import (
	"fmt"
	"math/bits"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/flogate/flogate/core/transport"
)

// codec is protobuf as gRPC has it, with two differences: buffers of the size of a frame are pooled (gRPC takes 1 MiB for
// each of more than 32 KiB, and clears it, which is a quarter of the work), and a frame of very many very small parts, which
// would take a hundred times its size in memory, is refused before it is decoded.
type codec struct{ pool bufferPool }

var _ encoding.CodecV2 = (*codec)(nil)

// Name implements [encoding.CodecV2]: on the wire it is what gRPC calls proto.
func (*codec) Name() string { return "proto" }

// Marshal implements [encoding.CodecV2].
func (c *codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode: a %T is no protobuf message", v)
	}
	size := proto.Size(m)
	options := proto.MarshalOptions{UseCachedSize: true}
	if mem.IsBelowBufferPoolingThreshold(size) {
		b, err := options.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	buf := c.pool.Get(size)
	if _, err := options.MarshalAppend((*buf)[:0], m); err != nil {
		c.pool.Put(buf)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buf, &c.pool)}, nil
}

// Unmarshal implements [encoding.CodecV2].
func (c *codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode: a %T is no protobuf message", v)
	}
	buf := data.MaterializeToBuffer(&c.pool)
	defer buf.Free()
	b := buf.ReadOnlyData()
	if len(b) > uncounted {
		if parts := countParts(b, m.ProtoReflect().Descriptor(), 0, 0); parts > maxParts {
			return transport.Permanentf("decode: more than %d parts in a message of %d bytes", maxParts, len(b))
		}
	}
	return proto.Unmarshal(b, m)
}

const (
	// A message up to this size cannot take too much memory, whatever is in it.
	uncounted = 512 << 10
	// maxParts is how many parts (messages in messages, and texts) a larger one may have. Frames of ours have 64 messages.
	maxParts = 1 << 16
)

// countParts counts parts up to a little more than maxParts. What is not protobuf is not counted: it will not be decoded.
func countParts(b []byte, d protoreflect.MessageDescriptor, parts, depth int) int {
	for len(b) > 0 && parts <= maxParts {
		number, wireType, n := protowire.ConsumeTag(b)
		if n < 0 {
			return parts
		}
		b = b[n:]
		if wireType != protowire.BytesType {
			n = protowire.ConsumeFieldValue(number, wireType, b)
			if n < 0 {
				return parts
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return parts
		}
		b = b[n:]
		parts++
		if f := d.Fields().ByNumber(number); f != nil && f.Message() != nil && depth < maxSchemaDepth*3 {
			parts = countParts(value, f.Message(), parts, depth+1)
		}
	}
	return parts
}

// bufferPool keeps buffers of frames, which it does not clear: they are always written before they are read.
type bufferPool struct {
	pools [21]sync.Pool // of buffers of 1 << i bytes; the last is for 1 MiB
}

var _ mem.BufferPool = (*bufferPool)(nil)

// Get implements [mem.BufferPool].
func (p *bufferPool) Get(length int) *[]byte {
	i := bits.Len(uint(max(1, length) - 1))
	if i >= len(p.pools) {
		b := make([]byte, length)
		return &b
	}
	b, ok := p.pools[i].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, length, 1<<i)
		return &fresh
	}
	*b = (*b)[:length]
	return b
}

// Put implements [mem.BufferPool].
func (p *bufferPool) Put(b *[]byte) {
	if c := cap(*b); c > 0 && bits.OnesCount(uint(c)) == 1 && bits.Len(uint(c))-1 < len(p.pools) {
		p.pools[bits.Len(uint(c))-1].Put(b)
	}
}
