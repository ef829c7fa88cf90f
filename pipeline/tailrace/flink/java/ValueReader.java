package tailrace.flink;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericMapData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;

/** Reads one Avro value as Flink's internal object; one small class per pair of types. */
abstract class ValueReader {
    abstract Object read(AvroInput in) throws IOException;

    /** A record: a row with the columns that the job wants, the others read over. */
    static class Row extends ValueReader {
        private final ValueReader[] fields;
        private final int[] targets;
        private final int arity;

        Row(ValueReader[] fields, int[] targets, int arity) {
            this.fields = fields;
            this.targets = targets;
            this.arity = arity;
        }

        Object read(AvroInput in) throws IOException {
            GenericRowData row = new GenericRowData(arity);
            for (int i = 0; i < fields.length; i++) {
                Object value = fields[i].read(in);
                if (targets[i] >= 0) {
                    row.setField(targets[i], value);
                }
            }
            return row;
        }
    }

    static class Union extends ValueReader {
        private final ValueReader[] branches;

        Union(ValueReader[] branches) {
            this.branches = branches;
        }

        Object read(AvroInput in) throws IOException {
            long branch = in.readLong();
            if (branch < 0 || branch >= branches.length) {
                throw new SchemaMismatchException("a record has an unknown union branch");
            }
            return branches[(int) branch].read(in);
        }
    }

    static class Null extends ValueReader {
        private final String refused;

        /** `refused` is the message for a null where the job has none, null where it may be. */
        Null(String refused) {
            this.refused = refused;
        }

        Object read(AvroInput in) throws IOException {
            if (refused != null) {
                throw new SchemaMismatchException(refused);
            }
            return null;
        }
    }

    static class Bool extends ValueReader {
        Object read(AvroInput in) throws IOException {
            return Boolean.valueOf(in.readBoolean());
        }
    }

    static class Int16 extends ValueReader {
        Object read(AvroInput in) throws IOException {
            return Short.valueOf((short) in.readLong());
        }
    }

    static class Int32 extends ValueReader {
        Object read(AvroInput in) throws IOException {
            return Integer.valueOf((int) in.readLong());
        }
    }

    static class Int64 extends ValueReader {
        Object read(AvroInput in) throws IOException {
            return Long.valueOf(in.readLong());
        }
    }

    static class Float32 extends ValueReader {
        Object read(AvroInput in) throws IOException {
            return Float.valueOf(Float.intBitsToFloat(in.readFixed32()));
        }
    }

    static class Float64 extends ValueReader {
        Object read(AvroInput in) throws IOException {
            return Double.valueOf(Double.longBitsToDouble(in.readFixed64()));
        }
    }

    /** int, long or float read as DOUBLE, as Avro's schema resolution promotes them. */
    static class Promoted extends ValueReader {
        private final ValueReader number;
        private final boolean single;

        Promoted(ValueReader number, boolean single) {
            this.number = number;
            this.single = single;
        }

        Object read(AvroInput in) throws IOException {
            Number value = (Number) number.read(in);
            return single ? (Object) Float.valueOf(value.floatValue()) : (Object) Double.valueOf(value.doubleValue());
        }
    }

    static class Timestamp extends ValueReader {
        private final boolean micros;

        Timestamp(boolean micros) {
            this.micros = micros;
        }

        Object read(AvroInput in) throws IOException {
            long value = in.readLong();
            if (!micros) {
                return TimestampData.fromEpochMillis(value);
            }
            return TimestampData.fromEpochMillis(
                    Math.floorDiv(value, 1000L), (int) Math.floorMod(value, 1000L) * 1000);
        }
    }

    /** bytes (size -1) or fixed. */
    static class Bytes extends ValueReader {
        private final int size;

        Bytes(int size) {
            this.size = size;
        }

        Object read(AvroInput in) throws IOException {
            return in.readBytes(size < 0 ? (int) in.readLong() : size);
        }
    }

    static class Decimal extends ValueReader {
        private final Bytes bytes;
        private final int precision;
        private final int scale;

        Decimal(Bytes bytes, int precision, int scale) {
            this.bytes = bytes;
            this.precision = precision;
            this.scale = scale;
        }

        Object read(AvroInput in) throws IOException {
            return DecimalData.fromUnscaledBytes((byte[]) bytes.read(in), precision, scale);
        }
    }

    static class Text extends ValueReader {
        Object read(AvroInput in) throws IOException {
            return StringData.fromBytes(in.readBytes((int) in.readLong()));
        }
    }

    static class Symbol extends ValueReader {
        private final StringData[] symbols;

        Symbol(StringData[] symbols) {
            this.symbols = symbols;
        }

        Object read(AvroInput in) throws IOException {
            return symbols[(int) in.readLong()];
        }
    }

    static class Array extends ValueReader {
        private final ValueReader element;

        Array(ValueReader element) {
            this.element = element;
        }

        Object read(AvroInput in) throws IOException {
            List items = new ArrayList();
            for (long n = blockLength(in); n != 0; n = blockLength(in)) {
                for (long i = 0; i < n; i++) {
                    items.add(element.read(in));
                }
            }
            return new GenericArrayData(items.toArray());
        }
    }

    static class Dictionary extends ValueReader {
        private final ValueReader value;

        Dictionary(ValueReader value) {
            this.value = value;
        }

        Object read(AvroInput in) throws IOException {
            Map entries = new HashMap();
            for (long n = blockLength(in); n != 0; n = blockLength(in)) {
                for (long i = 0; i < n; i++) {
                    StringData key = StringData.fromBytes(in.readBytes((int) in.readLong()));
                    entries.put(key, value.read(in));
                }
            }
            return new GenericMapData(entries);
        }
    }

    /** Count of the next block; a negative count is followed by the block's size in bytes. */
    private static long blockLength(AvroInput in) throws IOException {
        long count = in.readLong();
        if (count < 0) {
            in.readLong();
            return -count;
        }
        return count;
    }
}
