package tailrace.flink;

import java.io.IOException;

/** Avro binary over a byte array (Avro specification, "Binary Encoding"). */
class AvroInput {
    private final byte[] bytes;
    private int at;

    AvroInput(byte[] bytes, int at) {
        this.bytes = bytes;
        this.at = at;
    }

    long readLong() throws IOException {
        long value = 0;
        int shift = 0;
        while (true) {
            if (at >= bytes.length || shift > 63) {
                throw new SchemaMismatchException("a record ends inside a value");
            }
            byte next = bytes[at++];
            value |= (next & 127L) << shift;
            if (next >= 0) {
                return (value >>> 1) ^ -(value & 1);
            }
            shift += 7;
        }
    }

    boolean readBoolean() throws IOException {
        return bytes[take(1)] != 0;
    }

    int readFixed32() throws IOException {
        int from = take(4);
        return (bytes[from] & 255)
                | (bytes[from + 1] & 255) << 8
                | (bytes[from + 2] & 255) << 16
                | (bytes[from + 3] & 255) << 24;
    }

    long readFixed64() throws IOException {
        long low = readFixed32() & 4294967295L;
        return low | ((long) readFixed32()) << 32;
    }

    byte[] readBytes(int length) throws IOException {
        int from = take(length);
        byte[] copy = new byte[length];
        System.arraycopy(bytes, from, copy, 0, length);
        return copy;
    }

    private int take(int length) throws IOException {
        int from = at;
        if (length < 0 || length > bytes.length - from) {
            throw new SchemaMismatchException("a record ends inside a value");
        }
        at = from + length;
        return from;
    }
}
